# Certificates, the service account key, the token file and the kubeconfigs.
# shellcheck shell=bash

ensure_pki() {
  local scratch=$STATE/pki.new recipe
  recipe=$(recipe_hash pki.sh network.sh)
  if [ "$(cat "$STATE/pki/recipe" 2>/dev/null)" = "$recipe" ]; then return; fi
  rm -rf "$scratch" "$STATE/pki"
  mkdir -m 700 "$scratch"
  (cd "$scratch" && make_pki)
  echo "$recipe" >"$scratch/recipe"
  mv -T "$scratch" "$STATE/pki"
}

make_pki() {
  authority ca /CN=mykube-cluster-ca
  leaf apiserver /CN=kube-apiserver serverAuth \
    IP:127.0.0.1,IP:::1,IP:10.43.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
  leaf kubelet-serving /CN=kubelet serverAuth DNS:localhost,IP:127.0.0.1,IP:"$NODE_ADDRESS"
  leaf apiserver-kubelet /O=system:masters/CN=apiserver-kubelet-client clientAuth
  leaf admin /O=system:masters/CN=admin clientAuth
  leaf kubelet "/O=system:nodes/CN=system:node:$NODE" clientAuth
  leaf kube-controller-manager /CN=system:kube-controller-manager clientAuth
  leaf kube-scheduler /CN=system:kube-scheduler clientAuth
  leaf kube-proxy /CN=system:kube-proxy clientAuth
  authority front-proxy-ca /CN=mykube-front-proxy-ca
  AUTHORITY=front-proxy-ca leaf front-proxy-client /CN=front-proxy-client clientAuth
  new_key sa
  openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
  echo "mykube-$(openssl rand -hex 16),dev,dev-uid" >tokens.csv
  rm -f ./*.csr ./*.ext
}

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# authority NAME SUBJECT
authority() {
  new_key "$1"
  openssl req -x509 -new -key "$1.key" -sha256 -days 3650 -subj "$2" -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}

# leaf NAME SUBJECT USAGE [ALTERNATIVE_NAMES]: signed by $AUTHORITY, or else by ca.
leaf() {
  local authority=${AUTHORITY:-ca}
  new_key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  {
    echo keyUsage=critical,digitalSignature
    echo "extendedKeyUsage=$3"
    if [ -n "${4:-}" ]; then echo "subjectAltName=$4"; fi
  } >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days 3650 -sha256 \
    -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

write_kubeconfigs() {
  local name
  for name in admin kubelet kube-controller-manager kube-scheduler kube-proxy; do
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
