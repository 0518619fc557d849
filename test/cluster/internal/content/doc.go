// Package content resolves what a pod's containers find: their environment, their command after expansion, and the files of their volumes,
// from the pod's object and the ConfigMaps, Secrets, trust bundles and tokens that it refers to.
//
// In goes a pod and a client of the API server, out come strings and a folder with the volumes' files. The package starts nothing.
package content
