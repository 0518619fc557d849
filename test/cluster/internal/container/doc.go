// Package container runs a local program as Kubernetes runs a container: in namespaces of its own (mounts, processes, host name, IPC; the
// network's is the pod's), on a root folder made for it, with the user, the groups and the capabilities that it may have.
//
// In goes a Spec, out comes a Process to wait for, to signal and to run further commands in. The package knows nothing of Kubernetes'
// objects, of probes or of restarts.
//
// # How a container starts
//
// A Go process has many threads, so it can neither fork nor change its own mounts safely. The agent therefore starts itself again: the new
// process is born in new namespaces, is process 1 in them, and is told by its first argument (Reexec) to be Main. It reads the Spec from
// file descriptor 3, builds the root, gives up its privileges and executes the program in its own place. Until then it may report what went
// wrong on descriptor 4, which closes by itself when the program starts:
//
//	agent --clone(NEWNS|NEWPID|NEWUTS|NEWIPC)--> agent "container-init" --exec--> program (still process 1)
//
// A command inside a running container (an exec probe, kubectl exec) goes the same way with "container-exec", which enters the namespaces
// of process 1 instead of making new ones, and starts the command as its child.
//
// Process 1 of a process namespace takes all others with it when it ends, so nothing of a container outlives it.
package container
