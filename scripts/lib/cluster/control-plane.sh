# etcd, the API server, the controller manager and the scheduler. In a cluster with services all of them
# listen in its network namespace, and the API server on the host's 127.0.0.1 as well.
# shellcheck shell=bash

start_control_plane() {
  start_etcd
  start_apiserver
  start_controller_manager
  start_scheduler
}

start_etcd() {
  local client=http://127.0.0.1:$ETCD_PORT peer=http://127.0.0.1:$ETCD_PEER_PORT
  alive etcd && return
  [ -d "$STATE/etcd" ] || mkdir -m 700 "$STATE/etcd"
  spawn etcd "${INSIDE[@]}" "$TOOLS/root/usr/bin/etcd" --data-dir="$STATE/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls="$client" --advertise-client-urls="$client" --listen-peer-urls="$peer" \
    --initial-advertise-peer-urls="$peer" --initial-cluster="default=$peer"
  await etcd 30 listens "$ETCD_PORT"
}

start_apiserver() {
  local pki=$STATE/pki launcher=() network=(--bind-address=127.0.0.1 --endpoint-reconciler-type=none)
  alive kube-apiserver && return
  if [ "$SERVICES" = yes ]; then
    launcher=(python3 "$LIB/listen.py" "127.0.0.1:$API_PORT" "${INSIDE[@]}")
    network=(--bind-address=0.0.0.0 --advertise-address="$NODE_ADDRESS"
      --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client
      --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
      --requestheader-extra-headers-prefix=X-Remote-Extra-
      --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key")
  fi
  spawn kube-apiserver "${launcher[@]}" env GOGC=75 "$KUBERNETES/kube-apiserver" \
    --etcd-servers="http://127.0.0.1:$ETCD_PORT" --secure-port="$API_PORT" "${network[@]}" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --token-auth-file="$pki/tokens.csv" --cert-dir="$RUN/apiserver-certs" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --service-cluster-ip-range="$SERVICE_SUBNET" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-client-certificate="$pki/apiserver-kubelet.crt" \
    --kubelet-client-key="$pki/apiserver-kubelet.key" --kubelet-preferred-address-types=Hostname \
    --audit-policy-file="$LIB/config/audit-policy.yaml" --audit-log-path="$AUDIT_LOG" \
    --audit-log-maxsize=32 --audit-log-maxbackup=1 \
    --allow-privileged=true --profiling=false
  await kube-apiserver 120 kube get --raw=/readyz
}

start_controller_manager() {
  local pki=$STATE/pki
  alive kube-controller-manager && return
  spawn kube-controller-manager "${INSIDE[@]}" "$KUBERNETES/kube-controller-manager" \
    --kubeconfig="$STATE/kube-controller-manager.kubeconfig" --bind-address=127.0.0.1 --secure-port="$KCM_PORT" \
    --leader-elect=false --use-service-account-credentials=true --service-account-private-key-file="$pki/sa.key" \
    --root-ca-file="$pki/ca.crt" --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --cert-dir="$RUN/controller-manager-certs" --profiling=false "${NO_INSECURE_PORT[@]}"
  await kube-controller-manager 60 listens "$KCM_PORT"
}

start_scheduler() {
  alive kube-scheduler && return
  spawn kube-scheduler "${INSIDE[@]}" "$KUBERNETES/kube-scheduler" --kubeconfig="$STATE/kube-scheduler.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$SCHEDULER_PORT" --leader-elect=false \
    --cert-dir="$RUN/scheduler-certs" --profiling=false "${NO_INSECURE_PORT[@]}"
  await kube-scheduler 60 listens "$SCHEDULER_PORT"
}

# allow_dev: the token user may do everything, so that whole suites can run with a token.
allow_dev() {
  kube get clusterrolebinding mykube-dev >/dev/null 2>&1 ||
    kube create clusterrolebinding mykube-dev --clusterrole=cluster-admin --user=dev >/dev/null
}

stop_control_plane() {
  stop kube-scheduler 5
  stop kube-controller-manager 5
  # With a watch still open an API server takes over 20 seconds to end by itself; etcd holds its data.
  stop kube-apiserver 5
  stop etcd 10
}
