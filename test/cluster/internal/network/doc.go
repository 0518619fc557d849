// Package network makes the network of a test cluster: one network namespace that is the node, joined to the host by a pair of virtual
// interfaces, and in it a bridge with a namespace for each pod.
//
//	host                      node (the agent's namespace)               pod
//	gh88 10.88.255.1 ──────── eth0 10.88.255.2
//	route 10.88.0.0/16        pods 10.88.0.1 (bridge) ──── veth1 ─────── eth0 10.88.0.2/32
//	                          kube-proxy's nftables rules                 default via 10.88.0.1
//
// The host reaches pods, Services and load balancers by one route. Everything else, the rules of kube-proxy above all, is in the node's
// namespace, where two clusters cannot get into each other's way and nothing is left behind: with the node's last process the kernel
// removes its namespaces, interfaces, routes and rules.
//
// A pod's address is a /32, so pods speak to each other through the node and not across the bridge. That way the node's connection
// tracking sees both directions, and a Service whose endpoint is on the same bridge works without masquerading: servers see the address
// of the pod that calls.
//
// The package knows nothing of Kubernetes.
package network
