// Command controlplane is a Kubernetes control plane in one file: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
// kube-proxy, and kubectl to talk to them. Its first argument says which of them to be; the rest are that program's own flags. One binary
// instead of six is built once from the Kubernetes modules, shares what they have in common on disk and in memory, and needs no
// container image.
//
// It knows nothing of the test cluster that package cluster makes of it, so that it is built again only when Kubernetes changes.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // the metrics of clients, as the programs themselves register them
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// The exit code of a wrong command line.
const usageError = 2

func main() {
	programs := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllermanager.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kube-proxy":              proxy.NewProxyCommand,
		"kubectl":                 kubectl.NewDefaultKubectlCommand,
	}
	if len(os.Args) < 2 {
		exit("which program to be is missing", programs)
	}
	// Each program reads its flags from os.Args as if it were alone.
	name := os.Args[1]
	os.Args = os.Args[1:]
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	program, ok := programs[name]
	if !ok {
		exit(fmt.Sprintf("%q is none of the programs", name), programs)
	}
	os.Exit(cli.Run(program()))
}

// exit says what the command line should have been.
func exit(problem string, programs map[string]func() *cobra.Command) {
	names := []string{"etcd"}
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "controlplane: %s\nusage: controlplane %s [flags]\n", problem, strings.Join(names, "|"))
	os.Exit(usageError)
}
