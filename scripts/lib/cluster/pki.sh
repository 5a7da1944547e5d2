# Certificates, the service account key, the token file and the kubeconfigs.
# shellcheck shell=bash

ensure_pki() {
  [ -d "$STATE/pki" ] && return
  local scratch=$STATE/pki.new
  rm -rf "$scratch"
  mkdir -m 700 "$scratch"
  (cd "$scratch" && make_pki)
  mv -T "$scratch" "$STATE/pki"
}

make_pki() {
  new_key ca
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj /CN=mykube-cluster-ca -out ca.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  leaf apiserver /CN=kube-apiserver serverAuth \
    IP:127.0.0.1,IP:::1,IP:10.43.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
  leaf kubelet-serving /CN=kubelet serverAuth DNS:localhost,IP:127.0.0.1
  leaf apiserver-kubelet /O=system:masters/CN=apiserver-kubelet-client clientAuth
  leaf admin /O=system:masters/CN=admin clientAuth
  leaf kubelet "/O=system:nodes/CN=system:node:$NODE" clientAuth
  leaf kube-controller-manager /CN=system:kube-controller-manager clientAuth
  leaf kube-scheduler /CN=system:kube-scheduler clientAuth
  new_key sa
  openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
  echo "mykube-$(openssl rand -hex 16),dev,dev-uid" >tokens.csv
  rm -f ./*.csr ./*.ext
}

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# leaf NAME SUBJECT USAGE [ALTERNATIVE_NAMES]
leaf() {
  new_key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  {
    echo keyUsage=critical,digitalSignature
    echo "extendedKeyUsage=$3"
    if [ -n "${4:-}" ]; then echo "subjectAltName=$4"; fi
  } >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -sha256 \
    -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

write_kubeconfigs() {
  local name
  for name in admin kubelet kube-controller-manager kube-scheduler; do
    write_kubeconfig $name "{client-certificate-data: $(base64_of $name.crt), client-key-data: $(base64_of $name.key)}"
  done
  write_kubeconfig dev "{token: $(cut -d, -f1 "$STATE/pki/tokens.csv")}"
}

# write_kubeconfig USER CREDENTIALS
write_kubeconfig() {
  (
    umask 077
    cat >"$STATE/$1.kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
current-context: mykube
clusters:
- name: mykube
  cluster: {server: "https://127.0.0.1:$API_PORT", certificate-authority-data: $(base64_of ca.crt)}
users:
- name: $1
  user: $2
contexts:
- name: mykube
  context: {cluster: mykube, user: $1}
CONFIG
  )
}

base64_of() { base64 -w 0 <"$STATE/pki/$1"; }
