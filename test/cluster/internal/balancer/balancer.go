// Package balancer gives Services of type LoadBalancer their addresses, which kube-proxy then routes. It takes the place of the cloud that
// an ordinary cluster runs in.
//
// A Service gets an address of its own from the range, which it keeps until it is deleted or is no load balancer any more. With
// spec.loadBalancerIP it gets that one and no other: while it is outside of the range, or another Service has it, the Service stays without.
// Services with a loadBalancerClass belong to somebody else.
package balancer

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"gatehouse.dev/gatehouse/test/cluster/internal/network"
)

// Balancer assigns addresses. One goroutine does all of it, so it needs no lock.
type Balancer struct {
	client kubernetes.Interface
	logger *slog.Logger
	pool   *network.Pool
	held   map[types.UID]netip.Addr
}

// New makes a balancer with an empty pool.
func New(client kubernetes.Interface, r network.Ranges, logger *slog.Logger) *Balancer {
	return &Balancer{client: client, logger: logger, pool: network.NewPool(r.LoadBalancers, r.OnRequest.Contains), held: map[types.UID]netip.Addr{}}
}

// How soon a status that could not be written is tried again.
const retryInterval = 200 * time.Millisecond

// Run assigns addresses until ctx ends.
func (b *Balancer) Run(ctx context.Context, factory informers.SharedInformerFactory) error {
	services := factory.Core().V1().Services()
	changed := make(chan struct{}, 1)
	wake := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	registration, err := services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake,
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	for {
		list, err := services.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		if !b.sync(ctx, list) {
			time.AfterFunc(retryInterval, func() { wake(nil) })
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// sync brings all Services up to date. It returns false if it has to be called again.
func (b *Balancer) sync(ctx context.Context, list []*corev1.Service) bool {
	list = slices.Clone(list)
	// The oldest first: of two that want the same address it is the one to get it.
	slices.SortFunc(list, func(a, c *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(c.CreationTimestamp.Time), cmp.Compare(a.UID, c.UID))
	})
	wanted := map[types.UID]bool{}
	for _, service := range list {
		wanted[service.UID] = ours(service)
	}
	for uid, address := range b.held {
		if !wanted[uid] {
			b.pool.Return(address)
			delete(b.held, uid)
		}
	}
	done := true
	for _, service := range list {
		if err := b.write(ctx, service, b.address(service)); err != nil && !apierrors.IsNotFound(err) {
			b.logger.Debug("load balancer's address is not written yet", "namespace", service.Namespace, "service", service.Name, "error", err)
			done = false
		}
	}
	return done
}

func ours(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

// address returns what a Service has or now gets; the zero one for nothing.
func (b *Balancer) address(s *corev1.Service) netip.Addr {
	if !ours(s) {
		return netip.Addr{}
	}
	held, ok := b.held[s.UID]
	if request := s.Spec.LoadBalancerIP; request != "" {
		requested, err := netip.ParseAddr(request)
		if ok && err == nil && held == requested {
			return held
		}
		b.release(s.UID)
		if err != nil || !b.pool.Take(requested) {
			return netip.Addr{}
		}
		b.held[s.UID] = requested
		return requested
	}
	if ok {
		return held
	}
	next, err := b.pool.Next()
	if err != nil {
		b.logger.Warn("load balancer gets no address", "namespace", s.Namespace, "service", s.Name, "error", err)
		return netip.Addr{}
	}
	b.held[s.UID] = next
	return next
}

func (b *Balancer) release(uid types.UID) {
	if address, ok := b.held[uid]; ok {
		b.pool.Return(address)
		delete(b.held, uid)
	}
}

// write puts the address into a Service's status, if it is not there already. What has a class of its own is left alone.
func (b *Balancer) write(ctx context.Context, s *corev1.Service, address netip.Addr) error {
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass != nil || s.DeletionTimestamp != nil {
		return nil
	}
	var want []corev1.LoadBalancerIngress
	if address.IsValid() {
		mode := corev1.LoadBalancerIPModeVIP
		want = []corev1.LoadBalancerIngress{{IP: address.String(), IPMode: &mode}}
	}
	have := s.Status.LoadBalancer.Ingress
	if len(have) == 0 && len(want) == 0 || len(have) == 1 && len(want) == 1 && have[0].IP == want[0].IP {
		return nil
	}
	changed := s.DeepCopy()
	changed.Status.LoadBalancer.Ingress = want
	_, err := b.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	return err
}
