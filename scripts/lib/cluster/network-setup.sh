# network-setup.sh NODE_ADDRESS SERVICE_SUBNET: inside the cluster's network namespace, the node's address
# and a route that lets local connections to services get as far as kube-proxy's rules.
# shellcheck shell=bash

ip link set lo up
ip address add "$1/32" dev lo
ip route add "$2" dev lo src "$1"
