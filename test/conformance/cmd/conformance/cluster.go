package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cluster is a throw-away cluster of test/cluster.
type cluster struct {
	program string // the command gatehouse-cluster
	sources string // its module, from which it builds the control plane when there is none yet
	state   string // its folder
	// Of cluster.json, once it is up.
	kubeconfig, kubectl string
	usable, unusable    string
}

// unusableAddress is of the range for documentation (RFC 5737), which no load balancer gives away.
const unusableAddress = "192.0.2.77"

// up starts the cluster, with the programs that stand for images.
func (c *cluster) up(ctx context.Context, images map[string]string) error {
	args := []string{"up", "--state", c.state}
	for name, program := range images {
		args = append(args, "--image", name+"="+program)
	}
	if err := command(ctx, c.sources, nil, c.program, args...); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(c.state, "cluster.json"))
	if err != nil {
		return err
	}
	var info struct{ Kubeconfig, Kubectl, OnRequest string }
	if err := json.Unmarshal(text, &info); err != nil {
		return fmt.Errorf("cluster.json: %w", err)
	}
	onRequest, err := netip.ParsePrefix(info.OnRequest)
	if err != nil {
		return fmt.Errorf("cluster.json: %w", err)
	}
	c.kubeconfig, c.kubectl = info.Kubeconfig, info.Kubectl
	c.usable, c.unusable = onRequest.Addr().Next().String(), unusableAddress
	return nil
}

// down ends the cluster and everything that runs in it.
func (c *cluster) down(ctx context.Context) error {
	return command(ctx, c.sources, nil, c.program, "down", "--state", c.state)
}

// install does what docs/kubernetes.md tells a user to do: the API's definitions, then the gateway.
func (c *cluster) install(ctx context.Context, o *options, built *built) error {
	definitions, err := filepath.Glob(filepath.Join(built.crds, "gateway.networking.*.yaml"))
	if err != nil || len(definitions) == 0 {
		return fmt.Errorf("no CustomResourceDefinitions in %s: %w", built.crds, err)
	}
	slices.Sort(definitions)
	args := []string{"apply", "--server-side"}
	for _, file := range definitions {
		args = append(args, "-f", file)
	}
	if err := c.kubectlDo(ctx, nil, args...); err != nil {
		return err
	}
	install, err := os.ReadFile(filepath.Join(o.repository, "deploy", "install.yaml"))
	if err != nil {
		return err
	}
	if err := c.kubectlDo(ctx, install, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	return c.kubectlDo(ctx, nil, "wait", "--for=condition=Accepted", "gatewayclass/gatehouse", "--timeout=60s")
}

func (c *cluster) kubectlDo(ctx context.Context, input []byte, args ...string) error {
	return command(ctx, "", input, c.kubectl, append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
}

// command runs a program; its output is shown when it fails.
func command(ctx context.Context, dir string, input []byte, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
