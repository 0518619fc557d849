// Package cluster gives tests a real Kubernetes cluster of their own without containers: API server, controllers, scheduler and kube-proxy
// of one Kubernetes release, and a node that runs pods as local processes. README.md says how it works and what it does not do.
//
//	func TestSomething(t *testing.T) {
//		cluster.Require(t)
//		c, err := cluster.Start(t.Context(), cluster.Options{Images: map[string]string{"web": "bin/web"}})
//		...
//		defer c.Stop()
//		// use c.Kubeconfig() with client-go, or c.Kubectl
//	}
//
// The package runs the program gatehouse-cluster, which it builds when it has to, and knows nothing of how that works.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gatehouse.dev/gatehouse/test/cluster/internal/build"
)

// RequireVariable is the environment variable that makes Require fail where it would skip, if it is "required". A machine that is to run
// the cluster's tests sets it, so that they are never skipped unseen.
const RequireVariable = "GATEHOUSE_CLUSTER"

// Require skips the test, and says why, where no cluster can run or the control plane is not built yet: building takes minutes, which a
// test should not. With GATEHOUSE_CLUSTER=required it builds what is missing, and fails the test if no cluster can run even so.
func Require(t testing.TB) {
	t.Helper()
	required := os.Getenv(RequireVariable) == "required"
	err := available(t.Context(), required)
	switch {
	case err == nil:
	case required:
		t.Fatalf("%s=required, but %v", RequireVariable, err)
	default:
		t.Skipf("%v", err)
	}
}

// available says why a cluster cannot be started right now.
func available(ctx context.Context, mayBuild bool) error {
	folder, err := build.Folder(".")
	if err != nil {
		return err
	}
	plane := build.ControlPlane(folder)
	_, built, err := plane.Path()
	if err != nil {
		return err
	}
	if !built && !mayBuild {
		return errors.New("the test cluster's control plane is not built: make cluster-up builds it, which takes minutes, once")
	}
	command, err := build.Command(folder).Build(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, command, "check").CombinedOutput(); err != nil {
		return errors.New(string(bytes.TrimSpace(output)))
	}
	if !built {
		_, err = plane.Build(ctx, os.Stderr)
	}
	return err
}

// Options of a cluster. The zero value will do.
type Options struct {
	// Images maps names of images to the local programs that stand for them. Of an image's name in a pod only the last part counts,
	// without tag and digest: example.com/team/web:v1 is web.
	Images map[string]string
	// Range is the /16 of IPv4 addresses that the cluster takes, by default the first of 10.88.0.0/16 to 10.119.0.0/16 that is free.
	Range netip.Prefix
	// Folder is where the cluster keeps its data and logs, by default a temporary one, which Stop removes. Only one cluster can run in a
	// folder.
	Folder string
	// Progress is told of programs that are being built. By default nobody is.
	Progress io.Writer
}

// Cluster is a running cluster. It ends with Stop, and with the process that started it, however that ends. Its methods may be called
// by several goroutines at once.
type Cluster struct {
	command  string // gatehouse-cluster
	folder   string
	lifeline io.Closer
	info     info
	stop     func() error
}

// info is what gatehouse-cluster says of a cluster, see lab.Info.
type info struct {
	Kubeconfig, Kubectl                      string
	Pods, Services, LoadBalancers, OnRequest netip.Prefix
	Host, Node                               netip.Addr
}

// Start starts a cluster, having built what it needs, and returns when it is ready: seconds if nothing has to be built. Ctx limits the
// start only.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	folder, err := build.Folder(".")
	if err != nil {
		return nil, err
	}
	progress := o.Progress
	if progress == nil {
		progress = io.Discard
	}
	c := &Cluster{folder: o.Folder}
	c.stop = sync.OnceValue(c.end)
	if c.command, err = build.Command(folder).Build(ctx, progress); err != nil {
		return nil, err
	}
	plane, err := build.ControlPlane(folder).Build(ctx, progress)
	if err != nil {
		return nil, err
	}
	if c.folder == "" {
		if c.folder, err = os.MkdirTemp("", "gatehouse-cluster-"); err != nil {
			return nil, err
		}
	} else if c.folder, err = filepath.Abs(c.folder); err != nil {
		return nil, err
	}
	arguments := []string{"up", "--state", c.folder, "--control-plane", plane, "--lifeline"}
	if o.Range.IsValid() {
		arguments = append(arguments, "--range", o.Range.String())
	}
	for name, program := range o.Images {
		arguments = append(arguments, "--image", name+"="+program)
	}
	if err := c.up(ctx, arguments); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// up runs gatehouse-cluster up. The cluster holds the reading end of the lifeline; this process has the other, which the kernel closes if
// nobody else does.
func (c *Cluster) up(ctx context.Context, arguments []string) error {
	reading, writing, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reading.Close()
	c.lifeline = writing
	cmd := exec.CommandContext(ctx, c.command, arguments...)
	cmd.Stdin = reading
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start cluster: %w: %s", err, bytes.TrimSpace(output))
	}
	text, err := os.ReadFile(filepath.Join(c.folder, "cluster.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &c.info)
}

// Stop ends the cluster with everything that runs in it, and removes its data. Only the first call does something; all return its result.
func (c *Cluster) Stop() error { return c.stop() }

func (c *Cluster) end() error {
	output, err := exec.Command(c.command, "down", "--state", c.folder).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("stop cluster: %w: %s", err, bytes.TrimSpace(output))
	}
	if c.lifeline != nil {
		c.lifeline.Close()
	}
	return err
}

// Kubeconfig is the path of an administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.info.Kubeconfig }

// Kubectl runs a kubectl of the cluster's version with its kubeconfig and returns what it writes to its standard output. The error holds
// what it says besides.
func (c *Cluster) Kubectl(ctx context.Context, arguments ...string) (string, error) {
	return c.KubectlInput(ctx, "", arguments...)
}

// KubectlInput is Kubectl with a standard input, such as manifests for "apply -f -".
func (c *Cluster) KubectlInput(ctx context.Context, input string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.info.Kubectl, append([]string{"--kubeconfig", c.info.Kubeconfig}, arguments...)...)
	var output, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &problems
	if err := cmd.Run(); err != nil {
		return output.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, bytes.TrimSpace(problems.Bytes()))
	}
	return output.String(), nil
}

// LoadImage makes a local program stand for an image, in place of the one that did before. Containers that run already are not affected.
func (c *Cluster) LoadImage(name, program string) error {
	output, err := exec.Command(c.command, "image", "--state", c.folder, name+"="+program).CombinedOutput()
	if err != nil {
		return fmt.Errorf("load image %s: %w: %s", name, err, bytes.TrimSpace(output))
	}
	return nil
}

// Host is the address by which pods reach what listens on this machine.
func (c *Cluster) Host() netip.Addr { return c.info.Host }

// Node is the address of the node, where node ports are.
func (c *Cluster) Node() netip.Addr { return c.info.Node }

// LoadBalancers is the range that load balancers get their addresses from.
func (c *Cluster) LoadBalancers() netip.Prefix { return c.info.LoadBalancers }

// StaticAddresses are load balancers' addresses that no Service gets unless it asks for one by spec.loadBalancerIP.
func (c *Cluster) StaticAddresses() netip.Prefix { return c.info.OnRequest }

// UsableAddress is an address that a Service can ask for and that no other gets: one of StaticAddresses.
func (c *Cluster) UsableAddress() netip.Addr { return c.info.OnRequest.Addr().Next() }

// UnusableAddress is one that no Service can have: it belongs to documentation (RFC 5737).
func (c *Cluster) UnusableAddress() netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, 1}) }
