// Package node is the agent of a test cluster's only node: it does for local processes what a kubelet does for containers. It registers the
// node, runs the pods that are bound to it, reports their status, and answers the API server's requests for logs, commands and forwarded
// ports.
//
//	API server --pods of the node--> Agent --one goroutine each--> pod --one goroutine each--> task (container)
//	     ^                                                          |                            |
//	     +---------------------- status ----------------------------+<--- mutex, changed --------+
//
// A pod's life is told from top to bottom by pod.live, a container's by task.run. They share the pod's mutex, which guards everything that a
// status is made of, and wake the one goroutine that writes it.
//
// What a kubelet does and this does not: enforce CPU and memory limits, seccomp and other security modules, pull images (an image is a local
// program: see Images), attach persistent volumes, evict, and check whether a pod fits.
package node
