package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"gatehouse.dev/gatehouse/cmd/internal/dataplane"
	"gatehouse.dev/gatehouse/cmd/internal/filterset"
	"gatehouse.dev/gatehouse/controller/gatewayapi"
	"gatehouse.dev/gatehouse/controller/leader"
	"gatehouse.dev/gatehouse/gateway/admin"
	"gatehouse.dev/gatehouse/gateway/config"
)

const (
	// serviceAccountNamespace is where a Pod finds its namespace.
	serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	defaultNamespace        = "gatehouse-system"
	// leaseName is the Lease of the leader, in the controller's namespace.
	leaseName = "gatehouse-controller"
	// A leader that cannot renew its Lease within renewDeadline stops; leaseDuration after its last renewal another may begin.
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// controllerOptions are the flags of `gatehouse controller`.
type controllerOptions struct {
	kubeconfig        string
	namespace         string
	image             string
	listen            string
	advertise         string
	address           string
	admin             string
	elect             bool
	controllerName    string
	statusRate        float64
	statusConcurrency int
	log               dataplane.LogFlags
}

func controllerCommand() *cobra.Command {
	o := &controllerOptions{}
	c := &cobra.Command{
		Use:   "controller",
		Short: "Run the Gateways of a Kubernetes cluster",
		Long: "Follows the Gateway API objects of a cluster, runs proxies for each Gateway of its GatewayClasses, tells them what to serve,\n" +
			"and writes what became of every object into its status. Of several controllers one leads; the others wait.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runController(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster; without it the one that this process runs in")
	f.StringVar(&o.namespace, "namespace", "", "the controller's namespace; without it that of its Pod, or "+defaultNamespace)
	f.StringVar(&o.image, "proxy-image", "gatehouse-proxy:"+version, "image of the proxies, where GatewayParameters name none")
	f.StringVar(&o.listen, "listen", ":18000", "address where proxies connect")
	f.StringVar(&o.advertise, "advertise", "", "IP address where proxies reach this process; without it $POD_IP, or this machine's first address")
	f.StringVar(&o.address, "controller-address", "", "HOST:PORT that proxies are told; without it that of Service gatehouse-controller")
	f.StringVar(&o.admin, "admin", "127.0.0.1:15000", "address of /ready, /metrics, /config and /debug/pprof/; \"\" for none")
	f.BoolVar(&o.elect, "leader-elect", true, "lead only while holding the Lease "+leaseName)
	f.StringVar(&o.controllerName, "controller-name", gatewayapi.DefaultControllerName, "spec.controllerName of the GatewayClasses to serve")
	f.Float64Var(&o.statusRate, "status-rate", 100, "most writes of statuses a second, on average")
	f.IntVar(&o.statusConcurrency, "status-concurrency", 8, "most writes of statuses at once")
	o.log.Add(c)
	return c
}

func runController(ctx context.Context, o *controllerOptions) error {
	logger, err := o.log.Logger()
	if err != nil {
		return err
	}
	// The client libraries log what the controller says itself, in other words.
	klog.SetSlogLogger(slog.New(demoted{logger.Handler()}))
	dataplane.TuneRuntime(logger)
	if err := o.complete(); err != nil {
		return err
	}
	api, err := apiConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	advertise, err := advertised(o.advertise)
	if err != nil {
		return err
	}
	set, err := filterset.New()
	if err != nil {
		return err
	}
	metrics := newControllerMetrics()
	lead, err := leader.New(leader.Options{
		Config: api, Namespace: o.namespace, ControllerName: o.controllerName,
		Translator: gatewayapi.New(gatewayapi.Options{Filters: set, ControllerName: o.controllerName}),
		Features:   gatewayapi.SupportedFeatures(), Image: o.image, Listen: o.listen, Advertise: advertise, ControllerAddress: o.address,
		StatusRate: o.statusRate, StatusConcurrency: o.statusConcurrency, Logger: logger,
		OnReport: metrics.report, OnWrite: metrics.write,
	})
	if err != nil {
		return err
	}
	metrics.watch(lead)
	var leading atomic.Bool
	closeAdmin, err := openControllerAdmin(o.admin, lead, &leading, metrics, logger)
	if err != nil {
		return err
	}
	term := func(ctx context.Context) error {
		leading.Store(true)
		metrics.leading.Set(1)
		return lead.Run(ctx)
	}
	var runErr error
	if o.elect {
		runErr = elect(ctx, api, o, logger, term)
	} else {
		runErr = term(ctx)
	}
	final, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(runErr, closeAdmin(final))
}

// complete fills in and checks what flags leave open.
func (o *controllerOptions) complete() error {
	if o.statusRate <= 0 || o.statusConcurrency <= 0 {
		return errors.New("--status-rate and --status-concurrency must be greater than 0")
	}
	if o.namespace != "" {
		return nil
	}
	o.namespace = defaultNamespace
	if text, err := os.ReadFile(serviceAccountNamespace); err == nil && o.kubeconfig == "" {
		o.namespace = strings.TrimSpace(string(text))
	}
	return nil
}

// apiConfig says how the API server is reached.
func apiConfig(kubeconfig string) (*rest.Config, error) {
	var c *rest.Config
	var err error
	if kubeconfig == "" {
		if c, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("this process does not run in a cluster; name one with --kubeconfig: %w", err)
		}
	} else if c, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	c.UserAgent = "gatehouse/" + version
	c.QPS = -1 // API servers share their capacity out themselves; the status writer has a limit of its own
	return c, nil
}

// advertised returns the address at which other Pods reach this process.
func advertised(flag string) (netip.Addr, error) {
	for _, text := range []string{flag, os.Getenv("POD_IP")} {
		if text == "" {
			continue
		}
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("--advertise or $POD_IP is no IP address: %w", err)
		}
		return ip.Unmap(), nil
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("this machine's address cannot be found; set --advertise: %w", err)
	}
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr().Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("this machine has no address that others reach; set --advertise")
}

// elect runs term while this process holds the Lease. Losing it ends the process: what has been started cannot be trusted to have stopped
// in time, and a new process is standing by within a second.
func elect(ctx context.Context, api *rest.Config, o *controllerOptions, logger *slog.Logger, term func(context.Context) error) error {
	client, err := coordinationclient.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("leader election needs a name: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: o.namespace, Name: leaseName},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: fmt.Sprintf("%s-%d", host, os.Getpid())},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				logger.Info("leading", "lease", o.namespace+"/"+leaseName)
				ended <- term(ctx)
				cancel()
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != lock.Identity() {
					logger.Info("another controller leads; standing by", "leader", identity)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	elector.Run(ctx)
	switch {
	case ctx.Err() == nil: // the term got a context of the elector's, which has ended
		return errors.Join(errors.New("the Lease was lost; another controller leads"), <-ended)
	case elector.GetLeader() == lock.Identity():
		err := <-ended
		release(client, lock, logger)
		return err
	}
	return nil // this process was told to stop while it stood by
}

// release gives the Lease back after everything has stopped, so that the next leader need not wait for its end.
func release(client coordinationclient.LeasesGetter, lock *resourcelock.LeaseLock, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	lease, err := client.Leases(lock.LeaseMeta.Namespace).Get(ctx, lock.LeaseMeta.Name, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != lock.Identity() {
		return
	}
	none, second := "", int32(1)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &none, &second
	if _, err := client.Leases(lock.LeaseMeta.Namespace).Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		logger.Warn("the Lease was not given back; the next leader waits for its end", "error", err)
	}
}

func openControllerAdmin(address string, lead *leader.Leader, leading *atomic.Bool, m *controllerMetrics, logger *slog.Logger) (func(context.Context) error, error) {
	if address == "" {
		return func(context.Context) error { return nil }, nil
	}
	server, err := admin.Listen(address, admin.Options{
		Ready: func() error {
			if !leading.Load() {
				return nil // standing by is all that is asked of it
			}
			return lead.Ready()
		},
		Metrics: m.handler(),
		Config:  func() any { return controllerShown(lead, leading.Load()) },
	})
	if err != nil {
		return nil, err
	}
	logger.Info("admin listener", "address", "http://"+server.Addr())
	return server.Close, nil
}

// controllerShown is what /config has: the report, and what each Gateway's proxies are to run, without credentials.
func controllerShown(lead *leader.Leader, leading bool) any {
	gateways := map[string]any{}
	for gateway, c := range lead.Parts() {
		gateways[gateway] = config.Redacted(c)
	}
	r := lead.Report()
	return map[string]any{
		"leading": leading, "version": r.Version, "applied": r.Applied, "problems": r.Problems,
		"gateways": gateways, "proxies": lead.Connected(),
	}
}

// demoted is a handler that takes every record as debugging.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(a []slog.Attr) slog.Handler { return demoted{d.Handler.WithAttrs(a)} }
func (d demoted) WithGroup(name string) slog.Handler   { return demoted{d.Handler.WithGroup(name)} }
