package plane

import (
	"fmt"
	"strconv"
)

// Commands of the parts: the program's name, then its flags. What they leave out is the default of Kubernetes. Timing is set for tests: nothing
// waits for the disk, no client of the control plane is held back, and what changes is acted on at once.

func (p *Plane) etcd() []string {
	client, peer := "http://127.0.0.1:"+strconv.Itoa(etcdPort), "http://127.0.0.1:"+strconv.Itoa(peerPort)
	return []string{"etcd",
		"--data-dir=" + p.config("etcd"),
		"--unsafe-no-fsync", // after a crash a new cluster begins anyway
		"--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}
}

func (p *Plane) apiServer() []string {
	r, a := p.options.Ranges, p.authority
	return []string{"kube-apiserver",
		"--etcd-servers=http://127.0.0.1:" + strconv.Itoa(etcdPort),
		"--bind-address=0.0.0.0", "--secure-port=" + strconv.Itoa(apiPort), "--advertise-address=" + r.Node().String(),
		"--service-cluster-ip-range=" + r.Services.String(),
		"--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--client-ca-file=" + a.CertificateFile(),
		"--tls-cert-file=" + a.Path("apiserver.crt"), "--tls-private-key-file=" + a.Path("apiserver.key"),
		"--kubelet-certificate-authority=" + a.CertificateFile(), "--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + a.Path("kubelet-client.crt"), "--kubelet-client-key=" + a.Path("kubelet-client.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + a.Path("service-account.pub"), "--service-account-signing-key-file=" + a.Path("service-account.key"),
		"--enable-priority-and-fairness=false", "--profiling=false",
		// The version of trust bundles that clients of Gateway API read may be older than the one that is served by default.
		"--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true",
	}
}

func (p *Plane) controllerManager() []string {
	a := p.authority
	return []string{"kube-controller-manager",
		"--kubeconfig=" + p.config("controller-manager"),
		"--service-account-private-key-file=" + a.Path("service-account.key"), "--root-ca-file=" + a.CertificateFile(),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--allocate-node-cidrs=false",
		"--concurrent-endpoint-syncs=5", "--concurrent-service-endpoint-syncs=5", "--concurrent-namespace-syncs=20",
	}
}

func (p *Plane) scheduler() []string {
	return []string{"kube-scheduler",
		"--kubeconfig=" + p.config("scheduler"), "--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false",
		"--kube-api-qps=500", "--kube-api-burst=1000",
	}
}

func (p *Plane) proxy() []string {
	return []string{"kube-proxy", "--config=" + p.config("proxy.yaml")}
}

// proxyConfiguration leaves the settings of connection tracking alone, which are the whole machine's.
func (p *Plane) proxyConfiguration() []byte {
	return fmt.Appendf(nil, `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
bindAddress: %s
clusterCIDR: %s
detectLocalMode: ClusterCIDR
healthzBindAddress: 127.0.0.1:%d
metricsBindAddress: 127.0.0.1:10249
clientConnection:
  kubeconfig: %s
  qps: 500
  burst: 1000
nftables:
  minSyncPeriod: 50ms
  syncPeriod: 30s
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
`, p.options.Node, p.options.Ranges.Node(), p.options.Ranges.Pods, proxyPort, p.config("proxy"))
}
