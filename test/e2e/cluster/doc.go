// Package cluster holds tests that use the gateway as a user of Kubernetes does: a cluster of test/cluster, the custom resources of Gateway API,
// deploy/install.yaml, then objects, and requests from outside the cluster to the addresses that Gateways got. They show what only a whole cluster can
// show: that nothing crosses over between namespaces, that traffic goes on while controllers and proxies come and go, and that statuses tell the truth.
//
//	programs of this tree -> images -> cluster -> install.yaml -> one namespace or two for each test
//
// All tests share one cluster, which is started by the first. They are skipped, and say why, where no cluster can run or its control plane is
// not built; with GATEHOUSE_CLUSTER=required they fail in place of that. With GATEHOUSE_E2E_STATE=FOLDER the cluster's logs stay in that folder.
package cluster
