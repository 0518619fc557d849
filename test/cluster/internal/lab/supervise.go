package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"gatehouse.dev/gatehouse/test/cluster/internal/balancer"
	"gatehouse.dev/gatehouse/test/cluster/internal/clusterdns"
	"gatehouse.dev/gatehouse/test/cluster/internal/network"
	"gatehouse.dev/gatehouse/test/cluster/internal/node"
	"gatehouse.dev/gatehouse/test/cluster/internal/plane"
)

const (
	nodeName = "node"
	dnsPort  = 53
	// startLimit is how long a cluster may take to become ready.
	startLimit = 2 * time.Minute
	// unlimited lets the agent and its companions send as many requests as they like.
	unlimited = -1
)

// Supervise is the supervisor's life. It returns the process's exit code.
func Supervise() int {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	klog.SetSlogLogger(logger)
	ready := os.NewFile(readyFD, "ready")
	unix.CloseOnExec(readyFD)
	s := supervisor{logger: logger, ready: ready}
	if err := s.run(); err != nil {
		logger.Error("cluster ended", "error", err)
		fmt.Fprint(ready, err) // nobody listens any more if the cluster was ready
		return 1
	}
	return 0
}

type supervisor struct {
	options Options
	logger  *slog.Logger
	ready   *os.File

	ranges network.Ranges
	plane  *plane.Plane
	client kubernetes.Interface
}

func (s *supervisor) run() error {
	options := os.NewFile(optionsFD, "options")
	err := json.NewDecoder(options).Decode(&s.options)
	options.Close()
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if s.options.Lifeline {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			s.logger.Info("whoever started the cluster has ended")
			stop()
		}()
	}
	if err := s.namespace(); err != nil {
		return err
	}
	defer func() {
		if err := network.LeaveHost(); err != nil {
			s.logger.Warn("the host's interface is left to the kernel", "error", err)
		}
	}()
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	s.plane, err = plane.Start(starting, plane.Options{
		Program: s.options.ControlPlane, Folder: s.options.State.path("plane"), Ranges: s.ranges, Node: nodeName,
	})
	defer s.plane.Stop()
	if err != nil {
		return err
	}
	return s.serve(ctx)
}

// namespace makes this process's new namespaces what the cluster needs.
func (s *supervisor) namespace() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The one of the host's tells of other processes, and numbers them otherwise.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	var all netip.Prefix
	if text := s.options.Range; text != "" {
		var err error
		if all, err = netip.ParsePrefix(text); err != nil {
			return fmt.Errorf("range: %w", err)
		}
	}
	host := os.NewFile(hostFD, "host")
	defer host.Close()
	var err error
	s.ranges, err = network.JoinHost(host, all)
	return err
}

// serve runs everything besides the control plane until ctx ends or something fails.
func (s *supervisor) serve(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.plane.Admin)
	if err != nil {
		return err
	}
	config.QPS = unlimited
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	failed := make(chan error, 8)
	run := func(name string, f func() error) {
		group.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	agent := node.New(node.Options{
		Client: s.client, Name: nodeName, Ranges: s.ranges, Images: s.options.State.Images(), Folder: s.options.State.path("pods"),
		CertificateAuthority: s.plane.CertificateAuthority(), CertificateFile: s.plane.KubeletCertificate, KeyFile: s.plane.KubeletKey,
		Logger: s.logger,
	})
	factory := informers.NewSharedInformerFactory(s.client, 0)
	names := clusterdns.New(factory, node.Domain)
	addresses := balancer.New(s.client, s.ranges, s.logger)
	run("node", func() error { return agent.Run(ctx) })
	run("node's server", func() error { return agent.Serve(ctx) })
	run("load balancer", func() error { return addresses.Run(ctx, factory) })
	run("DNS", func() error { return names.Run(ctx, factory, netip.AddrPortFrom(s.ranges.Bridge(), dnsPort)) })
	run("start", func() error {
		starting, cancel := context.WithTimeout(ctx, startLimit)
		defer cancel()
		return s.becomeReady(starting)
	})
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	case err := <-s.plane.Died():
		return err
	}
}

// becomeReady waits for the rest of what a user may rely on, and says that it is there.
func (s *supervisor) becomeReady(ctx context.Context) error {
	for what, check := range map[string]func() error{
		"service account of namespace default": func() error {
			_, err := s.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
			return err
		},
		"root certificate of namespace default": func() error {
			_, err := s.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			return err
		},
		"node": func() error { return s.nodeReady(ctx) },
	} {
		if err := until(ctx, check); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := s.plane.WaitRouting(ctx); err != nil {
		return err
	}
	if err := s.publish(); err != nil {
		return err
	}
	s.logger.Info("cluster is ready", "range", s.ranges.All)
	return s.ready.Close()
}

func (s *supervisor) nodeReady(ctx context.Context) error {
	n, err := s.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && len(n.Spec.Taints) == 0 {
			return nil
		}
	}
	return fmt.Errorf("node %s is not ready", nodeName)
}

const pollInterval = 50 * time.Millisecond

// until calls check until it succeeds or ctx ends.
func until(ctx context.Context, check func() error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// publish writes what users of the cluster need.
func (s *supervisor) publish() error {
	state := s.options.State
	config, err := os.ReadFile(s.plane.Admin)
	if err != nil {
		return err
	}
	info := &Info{
		Kubeconfig: state.path("kubeconfig"), Kubectl: state.path("bin", "kubectl"),
		Pods: s.ranges.Pods, Services: s.ranges.Services, LoadBalancers: s.ranges.LoadBalancers, OnRequest: s.ranges.OnRequest,
		Host: s.ranges.Host(), Node: s.ranges.Node(),
	}
	if err := os.WriteFile(info.Kubeconfig, config, 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(info.Kubectl), 0o755); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' kubectl \"$@\"\n", s.options.ControlPlane)
	if err := os.WriteFile(info.Kubectl, []byte(script), 0o755); err != nil {
		return err
	}
	return state.write(info)
}
