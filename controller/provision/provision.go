// Package provision runs the proxies of Gateways in a cluster: it keeps a Deployment, a Service and what they need in the namespace of each
// Gateway. What is wanted comes in as the Gateways of a plan; what the cluster made of it goes out as Observed. It knows nothing of routes,
// translators and conditions.
//
// The idea: pure functions say which fields of which objects a Gateway should have (objects.go, service.go, deployment.go). Whenever these or
// the cluster change, the fields that are ours, as the API server's field management knows them, are compared with the wanted ones, and an object
// that differs is written by server-side apply. So fields that others own (node ports, an autoscaler's replicas, a mesh's annotations) are never
// looked at, fields that are no longer wanted go, and nothing is written when nothing differs.
//
// An object is this controller's when the Gateway is its controlling owner and the label or the field manager is ours. What has a name that
// we need and is not ours is left alone and reported. Objects of a deleted Gateway end by their owner reference, whether a controller runs
// or not.
package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes/typed/apps/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"gatehouse.dev/gatehouse/controller/plan"
)

// Options are what a Provisioner needs to know.
type Options struct {
	// Config reaches the API server.
	Config *rest.Config
	// ControllerName is that of spec.controllerName in GatewayClasses, and the field manager. Default "gatehouse.dev/controller". Two
	// controllers in one cluster must have two names.
	ControllerName string
	// Namespace is the controller's own.
	Namespace string
	// Image is the proxy's, where GatewayParameters name none.
	Image string
	// ControllerAddress is HOST:PORT where proxies reach the controller, ServerName the name in its certificate.
	ControllerAddress, ServerName string
	// CA returns the PEM of the CAs that proxies verify the controller with. It is asked again at each Want and each minute.
	CA func() []byte
	// Logger defaults to slog.Default.
	Logger *slog.Logger
	// OnChange is told of the Gateway ("namespace/name") whose Observed changed. It must not block. It may be nil.
	OnChange func(gateway string)
}

// Provisioner keeps the objects of the wanted Gateways.
type Provisioner struct {
	o     Options
	kinds []*kind
	queue workqueue.TypedRateLimitingInterface[string]

	mu sync.Mutex // guards what follows
	// known says that Want was called: until then nothing is unwanted.
	known bool
	// gateways are the wanted ones by "namespace/name".
	gateways map[string]plan.Gateway
	// kept are Gateways that are not wanted now and whose Services stay.
	kept map[string]bool
	// accounts are the Gateways by "namespace/service account".
	accounts map[string]string
	// problems are why Gateways cannot be provisioned.
	problems map[string]string
	observed map[string]Observed
	// ca is what the objects were last made with.
	ca []byte
}

const (
	// workers is how many Gateways are written at a time.
	workers = 4
	// A Gateway that could not be written is tried again after firstRetry, then twice that, up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Minute
	// patience is how often a write fails before an error that may pass is reported as a problem.
	patience = 5
	// caInterval is how often the CA is asked for.
	caInterval = time.Minute
	// defaultController is the name of the controller.
	defaultController = "gatehouse.dev/controller"
)

// New returns a Provisioner that does nothing before Run. It fails when an option is missing.
func New(o Options) (*Provisioner, error) {
	if o.Config == nil {
		return nil, errors.New("provision: Options.Config is missing: it says where the API server is")
	}
	config := rest.CopyConfig(o.Config)
	if config.QPS == 0 {
		// A start with a thousand Gateways reads and writes some thousand objects.
		config.QPS, config.Burst = 50, 100
	}
	core, err := coreclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	apps, err := v1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	policy, err := policyclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	return newProvisioner(o, clients{core: core, apps: apps, policy: policy})
}

func newProvisioner(o Options, c clients) (*Provisioner, error) {
	switch {
	case o.Image == "":
		return nil, errors.New("provision: Options.Image is missing: it is the image of the proxies")
	case o.ControllerAddress == "" || o.ServerName == "":
		return nil, errors.New("provision: Options.ControllerAddress or ServerName is missing: proxies need both to reach the controller")
	case o.CA == nil:
		return nil, errors.New("provision: Options.CA is missing: proxies verify the controller with it")
	}
	if o.ControllerName == "" {
		o.ControllerName = defaultController
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnChange == nil {
		o.OnChange = func(string) {}
	}
	p := &Provisioner{
		o:     o,
		kinds: kindsOf(c, managedByLabel+"="+managedBy(o.ControllerName)),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),

		gateways: map[string]plan.Gateway{},
		accounts: map[string]string{},
		problems: map[string]string{},
		observed: map[string]Observed{},
	}
	for _, k := range p.kinds {
		if _, err := k.informer.AddEventHandler(p.handler()); err != nil {
			return nil, fmt.Errorf("provision: watching %ss: %w", k.name, err)
		}
	}
	return p, nil
}

// handler puts the Gateway of an object that changed into the queue; when the object changed hands, both.
func (p *Provisioner) handler() cache.ResourceEventHandler {
	add := func(o any) {
		if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		keys, _ := indexByGateway(o)
		for _, key := range keys {
			p.queue.Add(key)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    add,
		UpdateFunc: func(old, o any) { add(old); add(o) },
		DeleteFunc: add,
	}
}

// Run works until ctx ends. It is called once.
func (p *Provisioner) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.queue.ShutDown()
	synced := make([]cache.InformerSynced, 0, len(p.kinds))
	for _, k := range p.kinds {
		all.Go(func() { k.informer.RunWithContext(ctx) })
		synced = append(synced, k.informer.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	for range workers {
		all.Go(func() { p.work(ctx) })
	}
	ticker := time.NewTicker(caInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			p.mu.Lock()
			p.takeCA()
			p.mu.Unlock()
		}
	}
}

// work takes Gateways out of the queue until it is shut down.
func (p *Provisioner) work(ctx context.Context) {
	for {
		key, shutdown := p.queue.Get()
		if shutdown {
			return
		}
		if err := p.sync(ctx, key); err != nil {
			if ctx.Err() == nil {
				p.o.Logger.Warn("a Gateway cannot be provisioned yet", "gateway", key, "error", err)
			}
			p.queue.AddRateLimited(key)
		} else {
			p.queue.Forget(key)
		}
		p.queue.Done(key)
	}
}

// Want says which Gateways are to be provisioned: these and no other. It returns at once.
//
// kept are Gateways ("namespace/name") that are there and cannot be accepted now, say because their parametersRef leads nowhere. Their proxies go,
// because nobody tells them any more what they may serve. Their Services stay: a mistake in a name must not cost a Gateway its address.
func (p *Provisioner) Want(list []plan.Gateway, kept ...string) {
	gateways := make(map[string]plan.Gateway, len(list))
	accounts := make(map[string]string, len(list))
	for i := range list {
		key := list[i].Key()
		gateways[key] = list[i]
		accounts[list[i].Origin.Namespace+"/"+objectName(list[i].Origin.Name)] = key
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, oldKept, first := p.gateways, p.kept, !p.known
	p.gateways, p.accounts, p.known = gateways, accounts, true
	p.kept = make(map[string]bool, len(kept))
	for _, key := range kept {
		p.kept[key] = true
	}
	for key, g := range gateways {
		if before, ok := old[key]; !ok || !sameWish(before, g) {
			p.queue.Add(key)
		}
	}
	for key := range old {
		if _, ok := gateways[key]; !ok {
			p.queue.Add(key)
		}
	}
	for key := range oldKept {
		if !p.kept[key] {
			p.queue.Add(key)
		}
	}
	if first {
		// What a controller before this one made and nobody wants any more. What the informers find later comes through their handlers.
		for _, k := range p.kinds {
			for _, key := range k.informer.GetIndexer().ListIndexFuncValues(byGateway) {
				p.queue.Add(key)
			}
		}
	}
	p.takeCA()
}

// sameWish reports whether two Gateways want the same objects: all but the generation matters.
func sameWish(a, b plan.Gateway) bool {
	a.Origin.Generation, b.Origin.Generation = 0, 0
	return reflect.DeepEqual(a, b)
}

// takeCA asks for the CA and puts every Gateway into the queue when it is another. p.mu is held.
func (p *Provisioner) takeCA() {
	ca := p.o.CA()
	if bytes.Equal(ca, p.ca) {
		return
	}
	p.ca = bytes.Clone(ca)
	for key := range p.gateways {
		p.queue.Add(key)
	}
}

// Observed returns what the cluster says of a Gateway, "namespace/name"; the zero value of one that is not wanted.
func (p *Provisioner) Observed(gateway string) Observed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.observed[gateway]
}

// GatewayOf returns the Gateway whose proxies run as a service account. Only an account that was made for a wanted Gateway, and that is still
// there, is one: an account of the same name that somebody else made is not.
func (p *Provisioner) GatewayOf(namespace, serviceAccount string) (gateway string, ok bool) {
	p.mu.Lock()
	key, ok := p.accounts[namespace+"/"+serviceAccount]
	uid := p.gateways[key].UID
	p.mu.Unlock()
	if !ok {
		return "", false
	}
	account := p.kind(kindServiceAccount).stored(namespace, serviceAccount)
	if account == nil || !p.isOurs(account, key) || !ownedBy(account, uid) {
		return "", false
	}
	return key, true
}

// kind returns how objects of a kind are handled.
func (p *Provisioner) kind(name kindName) *kind {
	for _, k := range p.kinds {
		if k.name == name {
			return k
		}
	}
	return nil
}
