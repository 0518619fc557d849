package provision

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	policyac "k8s.io/client-go/applyconfigurations/policy/v1"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/tools/cache"
)

// clients are the parts of the API that hold the objects of Gateways.
type clients struct {
	core   coreclient.CoreV1Interface
	apps   appsclient.AppsV1Interface
	policy policyclient.PolicyV1Interface
	// whole is asked whether lists can be streamed, which client-go's fake API server cannot. It may be nil.
	whole any
}

// kind is how objects of one kind are watched, compared and written.
type kind struct {
	name kindName
	// informer holds the objects that carry the label of what this controller made.
	informer cache.SharedIndexInformer
	get      func(ctx context.Context, namespace, name string) (metav1.Object, error)
	// ours returns, as an apply configuration, the fields of an object that the manager owns.
	ours func(live metav1.Object, manager string) (any, error)
	// apply writes an apply configuration. With a uid it fails when the object is not that one any more.
	apply  func(ctx context.Context, namespace string, config any, uid types.UID, options metav1.ApplyOptions) error
	remove func(ctx context.Context, namespace, name string, options metav1.DeleteOptions) error
}

// kindsOf returns the kinds in the order in which objects are made.
func kindsOf(c clients, selector string) []*kind {
	return []*kind{
		newKind(kindServiceAccount, &corev1.ServiceAccount{}, selector, c.whole,
			func(namespace string) client[*corev1.ServiceAccount, *corev1.ServiceAccountList, *coreac.ServiceAccountApplyConfiguration] {
				return c.core.ServiceAccounts(namespace)
			}, coreac.ExtractServiceAccount, (*coreac.ServiceAccountApplyConfiguration).WithUID),
		newKind(kindConfigMap, &corev1.ConfigMap{}, selector, c.whole,
			func(namespace string) client[*corev1.ConfigMap, *corev1.ConfigMapList, *coreac.ConfigMapApplyConfiguration] {
				return c.core.ConfigMaps(namespace)
			}, coreac.ExtractConfigMap, (*coreac.ConfigMapApplyConfiguration).WithUID),
		newKind(kindService, &corev1.Service{}, selector, c.whole,
			func(namespace string) client[*corev1.Service, *corev1.ServiceList, *coreac.ServiceApplyConfiguration] {
				return c.core.Services(namespace)
			}, coreac.ExtractService, (*coreac.ServiceApplyConfiguration).WithUID),
		newKind(kindDeployment, &appsv1.Deployment{}, selector, c.whole,
			func(namespace string) client[*appsv1.Deployment, *appsv1.DeploymentList, *appsac.DeploymentApplyConfiguration] {
				return c.apps.Deployments(namespace)
			}, appsac.ExtractDeployment, (*appsac.DeploymentApplyConfiguration).WithUID),
		newKind(kindBudget, &policyv1.PodDisruptionBudget{}, selector, c.whole,
			func(namespace string) client[*policyv1.PodDisruptionBudget, *policyv1.PodDisruptionBudgetList,
				*policyac.PodDisruptionBudgetApplyConfiguration] {
				return c.policy.PodDisruptionBudgets(namespace)
			}, policyac.ExtractPodDisruptionBudget, (*policyac.PodDisruptionBudgetApplyConfiguration).WithUID),
	}
}

// object is a kind's Go type.
type object interface {
	metav1.Object
	runtime.Object
}

// client is what the typed clients have in common: T is the object, L its list, A its apply configuration.
type client[T object, L runtime.Object, A any] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
	Apply(ctx context.Context, config A, options metav1.ApplyOptions) (T, error)
	Delete(ctx context.Context, name string, options metav1.DeleteOptions) error
}

// newKind ties a typed client, the function that extracts the fields of a manager and the one that sets a uid.
func newKind[T object, L runtime.Object, A any](name kindName, example T, selector string, whole any, in func(namespace string) client[T, L, A],
	extract func(T, string) (A, error), pin func(A, types.UID) A) *kind {
	everywhere := in(metav1.NamespaceAll)
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector
			return everywhere.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector
			return everywhere.Watch(ctx, options)
		},
	}
	return &kind{
		name: name,
		informer: cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lists, whole), example, 0,
			cache.Indexers{byGateway: indexByGateway}),
		get: func(ctx context.Context, namespace, objectName string) (metav1.Object, error) {
			return in(namespace).Get(ctx, objectName, metav1.GetOptions{})
		},
		ours: func(live metav1.Object, manager string) (any, error) {
			o, ok := live.(T)
			if !ok {
				return nil, fmt.Errorf("%T is no %s", live, name)
			}
			return extract(o, manager)
		},
		apply: func(ctx context.Context, namespace string, config any, uid types.UID, options metav1.ApplyOptions) error {
			c, ok := config.(A)
			if !ok {
				return fmt.Errorf("%T is no apply configuration of a %s", config, name)
			}
			if uid != "" {
				pin(c, uid)
			}
			_, err := in(namespace).Apply(ctx, c, options)
			return err
		},
		remove: func(ctx context.Context, namespace, objectName string, options metav1.DeleteOptions) error {
			return in(namespace).Delete(ctx, objectName, options)
		},
	}
}

// byGateway is the index that finds the objects of a Gateway, "namespace/name".
const byGateway = "gateway"

func indexByGateway(o any) ([]string, error) {
	m, ok := o.(metav1.Object)
	if !ok {
		return nil, nil
	}
	if name, ok := gatewayOf(m); ok {
		return []string{m.GetNamespace() + "/" + name}, nil
	}
	return nil, nil
}

// gatewayOf returns the name of the Gateway that owns an object, whichever UID that Gateway had: a Gateway that was deleted and made again takes
// over what is there.
func gatewayOf(o metav1.Object) (string, bool) {
	owner := metav1.GetControllerOfNoCopy(o)
	if owner == nil || owner.Kind != gatewayKind {
		return "", false
	}
	group, _, _ := strings.Cut(owner.APIVersion, "/")
	return owner.Name, group == gatewayGroup
}

// stored returns the object of that name in the informer's store, or nil.
func (k *kind) stored(namespace, name string) metav1.Object {
	o, ok, err := k.informer.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	m, _ := o.(metav1.Object)
	return m
}

// of returns the objects of a Gateway in the informer's store.
func (k *kind) of(gateway string) []metav1.Object {
	found, err := k.informer.GetIndexer().ByIndex(byGateway, gateway)
	if err != nil { // the index is not there, which newKind sees to
		return nil
	}
	out := make([]metav1.Object, 0, len(found))
	for _, o := range found {
		if m, ok := o.(metav1.Object); ok {
			out = append(out, m)
		}
	}
	return out
}
