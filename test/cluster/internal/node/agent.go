package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"gatehouse.dev/gatehouse/test/cluster/internal/content"
	"gatehouse.dev/gatehouse/test/cluster/internal/network"
)

// Options of an Agent. All are needed.
type Options struct {
	Client kubernetes.Interface
	// Name is the node's.
	Name   string
	Ranges network.Ranges
	Images Images
	// Folder takes the pods' volumes and logs.
	Folder string
	// CertificateAuthority is the file that the API server's certificate for Server is checked against; CertificateFile and KeyFile are
	// what Server shows.
	CertificateAuthority, CertificateFile, KeyFile string
	Logger                                         *slog.Logger
}

// Domain is the cluster's, below which Services have their names.
const Domain = "cluster.local"

// Agent runs the pods of a node.
type Agent struct {
	Options
	network  *network.Pods
	resolver *content.Resolver
	events   record.EventRecorder

	mu   sync.Mutex
	pods map[types.UID]*pod // guarded by mu
}

// New makes an agent. It must run in the network namespace that network.JoinHost made the node.
func New(o Options) *Agent {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: o.Client.CoreV1().Events("")})
	return &Agent{
		Options: o,
		network: network.NewPods(o.Ranges),
		resolver: &content.Resolver{Client: o.Client, Base: map[string]string{
			"PATH":                          "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"KUBERNETES_SERVICE_HOST":       o.Ranges.API().String(),
			"KUBERNETES_SERVICE_PORT":       "443",
			"KUBERNETES_SERVICE_PORT_HTTPS": "443",
			"KUBERNETES_PORT":               fmt.Sprintf("tcp://%s:443", o.Ranges.API()),
		}},
		events: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: o.Name}),
		pods:   map[types.UID]*pod{},
	}
}

// Run registers the node, and runs its pods until ctx ends. Their processes end with it.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.register(ctx); err != nil {
		return fmt.Errorf("register node %s: %w", a.Name, err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() { a.heartbeat(ctx) })
	source := cache.NewListWatchFromClient(a.Client.CoreV1().RESTClient(), "pods", "", fields.OneTermEqualSelector("spec.nodeName", a.Name))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: source, ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { a.update(ctx, &group, o.(*corev1.Pod)) },
			UpdateFunc: func(_, o any) { a.update(ctx, &group, o.(*corev1.Pod)) },
			DeleteFunc: func(o any) {
				if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = last.Obj
				}
				a.removed(o.(*corev1.Pod))
			},
		}})
	informer.RunWithContext(ctx)
	return nil
}

// update starts a pod that is new, or tells one of its object's change.
func (a *Agent) update(ctx context.Context, group *sync.WaitGroup, object *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pods[object.UID]; p != nil {
		p.update(object)
		return
	}
	if finished(object) {
		// It ended before: there is nothing to run, and only its object to remove.
		if object.DeletionTimestamp != nil {
			group.Go(func() { a.remove(ctx, object) })
		}
		return
	}
	p := newPod(a, object)
	a.pods[object.UID] = p
	group.Go(func() {
		p.live(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.pods, object.UID)
	})
}

func finished(object *corev1.Pod) bool {
	return object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
}

// removed is told that a pod's object is gone: whatever it still runs ends at once.
func (a *Agent) removed(object *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pods[object.UID]; p != nil {
		p.kill()
	}
}

// find returns the pod of a name, nil if there is none here.
func (a *Agent) find(namespace, name string) *pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pods {
		if p.namespace == namespace && p.name == name {
			return p
		}
	}
	return nil
}

// How long the agent tries again to remove the object of a pod whose processes have ended.
const removeInterval = 500 * time.Millisecond

// remove deletes a pod's object for good, now that nothing of it runs.
func (a *Agent) remove(ctx context.Context, object *corev1.Pod) {
	now := int64(0)
	for {
		err := a.Client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name,
			metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &object.UID}})
		// A conflict says that the name belongs to another pod by now.
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		a.Logger.Warn("pod is not removed yet", "namespace", object.Namespace, "pod", object.Name, "error", err)
		if !sleep(ctx, removeInterval) {
			return
		}
	}
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
