// Package leader is what the leading controller of a cluster runs: it puts the source, the translator, the wire to the proxies, the provisioner
// and the status writer together, and says what is known of each Gateway's proxies.
//
//	cluster.Source -> controller.Loop -> publish.Fleet -> wire.Server ==TLS==> proxies
//	       ^                |  onReport                        | acks
//	       |                +-> provision.Provisioner -----+   |
//	       +----------------+-> status.Writer <------------+---+
//
// It holds no rules of its own: each part has its package.
package leader

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"

	"gatehouse.dev/gatehouse/controller"
	"gatehouse.dev/gatehouse/controller/access"
	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/provision"
	"gatehouse.dev/gatehouse/controller/publish"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/controller/source/cluster"
	"gatehouse.dev/gatehouse/controller/status"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
)

// Options are what a Leader needs.
type Options struct {
	// Config says how the API server is reached; without a client-side rate limit.
	Config *rest.Config
	// Namespace is the controller's own: that of its Service, its CA and its Lease.
	Namespace string
	// ControllerName is that of the GatewayClasses that are served.
	ControllerName string
	// Translator is used by one goroutine.
	Translator controller.Translator
	// Features are those for GatewayClass.status.supportedFeatures.
	Features []string
	// Image is that of the proxies.
	Image string
	// Listen is HOST:PORT where proxies connect. The endpoint of the controller's Service is Advertise with that port.
	Listen    string
	Advertise netip.Addr
	// ControllerAddress is HOST:PORT that proxies are told; "" for the Service's name.
	ControllerAddress string
	// StatusRate and StatusConcurrency bound the writes of statuses; 0 is the default.
	StatusRate        float64
	StatusConcurrency int
	Logger            *slog.Logger
	// OnReport gets every report. OnWrite is told of every write of a status, as status.Options.OnWrite. Both may be nil.
	OnReport func(*controller.Report)
	OnWrite  func(kind, result string)
}

// Leader is one term of leadership. Its methods are safe for concurrent use; Run is called once.
type Leader struct {
	opts     Options
	keeper   *access.Keeper
	endpoint *access.Endpoint
	source   *cluster.Source
	wire     *wire.Server
	fleet    *publish.Fleet
	loop     *controller.Loop
	provider *provision.Provisioner
	writer   *status.Writer
	// published is closed when the first plan is out: before that a proxy that comes would learn nothing.
	published chan struct{}
	first     sync.Once

	mu       sync.Mutex
	plan     *plan.Plan              // the last one reported; guarded by mu
	gateways map[string]plan.Gateway // of it; guarded by mu
	since    map[string]time.Time    // when each of them was first wanted; guarded by mu
}

const (
	// away is how long proxies that were there may be gone before what they served counts as not programmed: they reconnect within
	// seconds when a controller ends.
	away = 30 * time.Second
	// unobserved is how long a Gateway's status waits for the first word about its Deployment.
	unobserved = 3 * time.Second
	// reviewEvery is how often every Gateway's status is looked at, for what changes by time alone.
	reviewEvery = 10 * time.Second
)

// New returns a Leader that has made no request yet.
func New(o Options) (*Leader, error) {
	if o.OnReport == nil {
		o.OnReport = func(*controller.Report) {}
	}
	l := &Leader{opts: o, published: make(chan struct{}), since: map[string]time.Time{}, gateways: map[string]plan.Gateway{}}
	core, err := coreclient.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	discovery, err := discoveryclient.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	authentication, err := authenticationclient.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	serverName := access.ServiceName + "." + o.Namespace + ".svc"
	l.keeper = access.NewKeeper(core.Secrets(o.Namespace), []string{serverName}, o.Logger)
	l.endpoint = &access.Endpoint{
		Slices: discovery.EndpointSlices(o.Namespace), Services: core.Services(o.Namespace),
		Address: o.Advertise, Manager: o.ControllerName, Logger: o.Logger,
	}
	address := o.ControllerAddress
	if address == "" {
		address = net.JoinHostPort(serverName, fmt.Sprint(access.ServicePort))
	}
	if l.provider, err = provision.New(provision.Options{
		Config: o.Config, ControllerName: o.ControllerName, Namespace: o.Namespace, Image: o.Image,
		ControllerAddress: address, ServerName: serverName, CA: l.keeper.CA, Logger: o.Logger,
		OnChange: func(gateway string) { l.writer.Gateway(gateway) },
	}); err != nil {
		return nil, err
	}
	authorizer := access.NewAuthorizer(authentication.TokenReviews(), l.provider.GatewayOf)
	l.wire = wire.NewServer(wire.ServerOptions{Authorize: authorizer.Authorize, Logger: o.Logger, OnChange: func(gateway string) {
		l.writer.Gateway(gateway)
		l.loop.Refresh()
	}})
	l.fleet = publish.NewFleet(l.wire)
	if l.source, err = cluster.New(cluster.Options{Config: o.Config, Logger: o.Logger, OnStatus: func(ref source.Ref) { l.writer.Changed(ref) }}); err != nil {
		return nil, err
	}
	l.writer = status.New(status.Options{
		Cluster: l.source, Controller: o.ControllerName, Features: o.Features, Serving: l.serving,
		Rate: o.StatusRate, Concurrency: o.StatusConcurrency, Logger: o.Logger, OnWrite: o.OnWrite,
	})
	l.loop = controller.New(l.source, o.Translator, l.fleet, o.Logger, l.reported)
	return l, nil
}

// Run leads until ctx ends or a part fails for good.
func (l *Leader) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", l.opts.Listen)
	if err != nil {
		return fmt.Errorf("proxies cannot be served; choose another address with --listen: %w", err)
	}
	defer listener.Close()
	bound, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	l.endpoint.Port = bound.Port()
	if err := l.keepFirst(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	run := func(name string, part func(context.Context) error) {
		parts.Go(func() {
			err := part(ctx)
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			cancel(err) // every part runs to the end; the first that ends, ends all
		})
	}
	run("loop", l.loop.Run)
	run("provisioner", l.provider.Run)
	run("status", func(ctx context.Context) error { l.writer.Run(ctx); return ctx.Err() })
	run("ca", func(ctx context.Context) error { l.keeper.Run(ctx); return ctx.Err() })
	run("endpoint", func(ctx context.Context) error {
		if l.waitPublished(ctx) {
			l.endpoint.Run(ctx)
		}
		return ctx.Err()
	})
	run("wire", func(ctx context.Context) error { return l.serve(ctx, listener) })
	run("review", func(ctx context.Context) error { l.review(ctx); return ctx.Err() })
	<-ctx.Done()
	parts.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// keepFirst reads or makes the CA, without which nothing else can begin.
func (l *Leader) keepFirst(ctx context.Context) error {
	for {
		err := l.keeper.Keep(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		l.opts.Logger.Error("the controller has no CA yet; trying again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
	}
}

func (l *Leader) waitPublished(ctx context.Context) bool {
	select {
	case <-l.published:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve serves the wire, once there is something to say.
func (l *Leader) serve(ctx context.Context, listener net.Listener) error {
	if !l.waitPublished(ctx) {
		return ctx.Err()
	}
	server := grpc.NewServer(append(wire.GRPCOptions(), grpc.Creds(credentials.NewTLS(l.tls())))...)
	l.wire.Register(server)
	stop := context.AfterFunc(ctx, func() {
		l.wire.Close()
		server.Stop()
	})
	defer stop()
	return server.Serve(listener)
}

func (l *Leader) tls() *tls.Config { return l.keeper.TLS() }

// review looks at every Gateway's status now and then.
func (l *Leader) review(ctx context.Context) {
	ticker := time.NewTicker(reviewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for gateway := range l.wanted() {
				l.writer.Gateway(gateway)
			}
		}
	}
}

func (l *Leader) wanted() map[string]plan.Gateway {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gateways
}

// reported hands a new plan to those who act on it. The loop calls it.
func (l *Leader) reported(r *controller.Report) {
	l.mu.Lock()
	fresh := l.plan != r.Plan
	if fresh {
		l.plan = r.Plan
		gateways := make(map[string]plan.Gateway, len(r.Plan.Gateways))
		since := make(map[string]time.Time, len(r.Plan.Gateways))
		for i := range r.Plan.Gateways {
			key := r.Plan.Gateways[i].Key()
			gateways[key] = r.Plan.Gateways[i]
			if since[key] = l.since[key]; since[key].IsZero() {
				since[key] = time.Now()
			}
		}
		l.gateways, l.since = gateways, since
	}
	l.mu.Unlock()
	if fresh {
		l.provider.Want(r.Plan.Gateways, refused(r.Plan)...)
		l.writer.Plan(r.Plan)
		l.first.Do(func() { close(l.published) })
	}
	l.opts.OnReport(r)
}

// refused returns the Gateways that are there and not accepted, or whose class is missing, say because it is being replaced. Their addresses are
// to be kept.
func refused(p *plan.Plan) []string {
	var out []string
	for i := range p.Outcomes {
		o := &p.Outcomes[i]
		if o.Object.Kind != "Gateway" || o.Object.Rule != "" {
			continue
		}
		if slices.ContainsFunc(o.Conditions, func(c plan.Condition) bool { return c.Type == "Accepted" && !c.Status }) {
			out = append(out, o.Object.Namespace+"/"+o.Object.Name)
		}
	}
	for i := range p.Problems {
		if one := &p.Problems[i]; one.Kind == "Gateway" && one.Reason == problem.UnknownClass {
			out = append(out, one.Namespace+"/"+one.Name)
		}
	}
	return out
}

// serving puts together what cluster and proxies say of a Gateway.
func (l *Leader) serving(gateway string) (status.Serving, time.Duration) {
	l.mu.Lock()
	g, ok := l.gateways[gateway]
	age := time.Since(l.since[gateway])
	l.mu.Unlock()
	if !ok {
		return status.Serving{}, 0
	}
	seen := l.provider.Observed(gateway)
	standing, ok := l.fleet.Standing(gateway, seen.Ready)
	s := status.Serving{
		Problem: seen.Problem, Ready: seen.Ready, Addresses: seen.Addresses, Requested: g.Addresses,
		Acknowledged: standing.Acknowledged, Behind: standing.Behind, Refused: standing.Refused, Listeners: standing.Listeners,
		Away: standing.Short > 0 && standing.Short < away,
	}
	switch {
	case seen.Replicas == 0 && seen.Problem == "" && age < unobserved:
		return s, unobserved - age // its Deployment is about to be made; the provisioner will say
	case ok && standing.Behind > 0 && standing.Age < publish.Settle:
		return s, publish.Settle - standing.Age // they are about to take it over
	}
	return s, 0
}

// Ready says why this leader does not serve yet, or nil.
func (l *Leader) Ready() error {
	if err := l.source.Waiting(); err != nil {
		return err
	}
	return l.loop.Ready()
}

// Report returns what came of the last state.
func (l *Leader) Report() *controller.Report { return l.loop.Report() }

// Parts returns what each Gateway's proxies are to run.
func (l *Leader) Parts() map[string]*config.Config { return l.fleet.Parts() }

// Connected returns the number of connected proxies of each Gateway, Objects the number of objects of each kind.
func (l *Leader) Connected() map[string]int { return l.fleet.Connected() }

// Objects returns the number of objects of each kind that are held.
func (l *Leader) Objects() map[string]int { return l.source.Counts() }
