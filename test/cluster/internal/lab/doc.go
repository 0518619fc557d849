// Package lab puts a test cluster together and takes it apart: it starts the supervisor, a process in namespaces of its own that runs the
// control plane, the node's agent, the name server and the balancer, and finds it again by its state folder.
//
//	up ──clone(NEWPID|NEWNS|NEWNET)──> supervisor (process 1) ──> etcd, kube-apiserver, ..., kube-proxy
//	                                        │ agent, DNS, balancer ──> containers
//	down ──SIGTERM──────────────────────────┘
//
// As process 1 of a process namespace the supervisor takes everything with it when it ends, however it ends, and the kernel takes the network
// and the mounts. Only the state folder stays for down, or the next up, to remove:
//
//	STATE/cluster.json   what there is to know about the running cluster (Info)
//	STATE/kubeconfig     of an administrator
//	STATE/bin/kubectl    the control plane's own
//	STATE/images/        links to the programs that stand for images
//	STATE/plane/log/     logs of the control plane;  STATE/supervisor.log: of the rest
//	STATE/plane/, pods/  data
package lab
