package cluster

import (
	"reflect"
	"slices"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
)

const (
	gatewayGroup     = gatewayv1.GroupName
	experimentsGroup = "gateway.networking.x-k8s.io"
)

// kind is what the source knows about one kind of object.
type kind struct {
	name, group, resource string
	// versions that decode into the kind's Go type, the preferred one first.
	versions []string
	scope    scope
	// hasStatus says that the controller writes its status: the objects are kept as they are beside what States show of them.
	hasStatus bool
	// optional kinds that the controller may not read count as absent.
	optional bool
	// register makes a scheme decode the kind's type and its list from a version.
	register func(*runtime.Scheme, schema.GroupVersion)
	// reduce returns a copy of what States show of an object: without what nobody reads, so that a write to it changes nothing. It
	// returns nil for an object of another type.
	reduce func(runtime.Object) metav1.Object
}

// scope is which objects of a kind are watched.
type scope int

const (
	all      scope = iota // every object
	metadata              // every object, its metadata only
	named                 // those that Want names
	needed                // every object, as long as another object needs them
)

// kinds is the table of the kinds of a source.State.
var kinds = []*kind{
	of[gatewayv1.GatewayClass, gatewayv1.GatewayClassList]("GatewayClass", gatewayGroup, "gatewayclasses",
		func(o *gatewayv1.GatewayClass) { o.Status = gatewayv1.GatewayClassStatus{} }, "v1", "v1beta1").status(),
	of[gatewayv1.Gateway, gatewayv1.GatewayList]("Gateway", gatewayGroup, "gateways",
		func(o *gatewayv1.Gateway) { o.Status = gatewayv1.GatewayStatus{} }, "v1", "v1beta1").status(),
	of[gatewayv1.ListenerSet, gatewayv1.ListenerSetList]("ListenerSet", gatewayGroup, "listenersets",
		func(o *gatewayv1.ListenerSet) { o.Status = gatewayv1.ListenerSetStatus{} }, "v1").status(),
	of[gatewayv1.HTTPRoute, gatewayv1.HTTPRouteList]("HTTPRoute", gatewayGroup, "httproutes",
		func(o *gatewayv1.HTTPRoute) { o.Status = gatewayv1.HTTPRouteStatus{} }, "v1", "v1beta1").status(),
	of[gatewayv1.GRPCRoute, gatewayv1.GRPCRouteList]("GRPCRoute", gatewayGroup, "grpcroutes",
		func(o *gatewayv1.GRPCRoute) { o.Status = gatewayv1.GRPCRouteStatus{} }, "v1", "v1alpha2").status(),
	of[gatewayv1.TLSRoute, gatewayv1.TLSRouteList]("TLSRoute", gatewayGroup, "tlsroutes",
		func(o *gatewayv1.TLSRoute) { o.Status = gatewayv1.TLSRouteStatus{} }, "v1", "v1alpha3", "v1alpha2").status(),
	of[gatewayv1.TCPRoute, gatewayv1.TCPRouteList]("TCPRoute", gatewayGroup, "tcproutes",
		func(o *gatewayv1.TCPRoute) { o.Status = gatewayv1.TCPRouteStatus{} }, "v1", "v1alpha2").status(),
	of[gatewayv1.UDPRoute, gatewayv1.UDPRouteList]("UDPRoute", gatewayGroup, "udproutes",
		func(o *gatewayv1.UDPRoute) { o.Status = gatewayv1.UDPRouteStatus{} }, "v1", "v1alpha2").status(),
	of[gatewayv1beta1.ReferenceGrant, gatewayv1beta1.ReferenceGrantList]("ReferenceGrant", gatewayGroup, "referencegrants",
		nil, "v1", "v1beta1"),
	of[gatewayv1.BackendTLSPolicy, gatewayv1.BackendTLSPolicyList]("BackendTLSPolicy", gatewayGroup, "backendtlspolicies",
		func(o *gatewayv1.BackendTLSPolicy) { o.Status = gatewayv1.PolicyStatus{} }, "v1", "v1alpha3").status(),
	of[gatewayxv1alpha1.XBackend, gatewayxv1alpha1.XBackendList]("XBackend", experimentsGroup, "xbackends",
		func(o *gatewayxv1alpha1.XBackend) { o.Status = gatewayxv1alpha1.BackendStatus{} }, "v1alpha1").status(),
	of[gatewayxv1alpha1.XBackendTrafficPolicy, gatewayxv1alpha1.XBackendTrafficPolicyList]("XBackendTrafficPolicy", experimentsGroup,
		"xbackendtrafficpolicies", func(o *gatewayxv1alpha1.XBackendTrafficPolicy) { o.Status = gatewayv1.PolicyStatus{} }, "v1alpha1").status(),
	of[gatewayxv1alpha1.XTelemetryPolicy, gatewayxv1alpha1.XTelemetryPolicyList]("XTelemetryPolicy", experimentsGroup, "xtelemetrypolicies",
		func(o *gatewayxv1alpha1.XTelemetryPolicy) { o.Status = gatewayxv1alpha1.TelemetryPolicyStatus{} }, "v1alpha1").status(),
	of[v1alpha1.GatewayParameters, v1alpha1.GatewayParametersList]("GatewayParameters", "gatehouse.dev", "gatewayparameters", nil, "v1alpha1"),
	of[corev1.Service, corev1.ServiceList]("Service", "", "services",
		func(o *corev1.Service) { o.Status = corev1.ServiceStatus{} }, "v1"),
	of[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList]("EndpointSlice", "discovery.k8s.io", "endpointslices",
		func(o *discoveryv1.EndpointSlice) { o.Annotations = nil }, "v1"),
	of[corev1.Pod, corev1.PodList]("Pod", "", "pods", reducePod, "v1").scoped(needed),
	of[corev1.Secret, corev1.SecretList]("Secret", "", "secrets", nil, "v1").scoped(named),
	of[corev1.ConfigMap, corev1.ConfigMapList]("ConfigMap", "", "configmaps", nil, "v1").scoped(named),
	of[certificatesv1beta1.ClusterTrustBundle, certificatesv1beta1.ClusterTrustBundleList]("ClusterTrustBundle", "certificates.k8s.io",
		"clustertrustbundles", nil, "v1", "v1beta1", "v1alpha1").maybe(),
	namespaces(),
}

// of describes a kind by its Go types. strip removes from a copy of an object what States need not show; it may be nil.
func of[T, L any, P interface {
	*T
	metav1.Object
	runtime.Object
}, Q interface {
	*L
	runtime.Object
}](name, group, resource string, strip func(*T), versions ...string) *kind {
	return &kind{
		name: name, group: group, resource: resource, versions: versions,
		register: func(s *runtime.Scheme, gv schema.GroupVersion) {
			s.AddKnownTypeWithName(gv.WithKind(name), P(new(T)))
			s.AddKnownTypeWithName(gv.WithKind(name+"List"), Q(new(L)))
		},
		reduce: func(object runtime.Object) metav1.Object {
			full, ok := object.(P)
			if !ok {
				return nil
			}
			shown := *full                                                           // shallow: what is shown shares the spec with the object it came from
			P(&shown).GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // lists and watches differ in it
			reduceMetadata(P(&shown))
			if strip != nil {
				strip(&shown)
			}
			return P(&shown)
		},
	}
}

func (k *kind) status() *kind {
	k.hasStatus = true
	return k
}

func (k *kind) scoped(s scope) *kind {
	k.scope = s
	return k
}

func (k *kind) maybe() *kind {
	k.optional = true
	return k
}

// reduceMetadata drops what changes with every write, or is large and read by nobody.
func reduceMetadata(o metav1.Object) {
	o.SetResourceVersion("")
	o.SetManagedFields(nil)
	o.SetFinalizers(nil)
	const lastApplied = corev1.LastAppliedConfigAnnotation
	if annotations := o.GetAnnotations(); annotations[lastApplied] != "" {
		kept := make(map[string]string, len(annotations)-1)
		for key, value := range annotations {
			if key != lastApplied {
				kept[key] = value
			}
		}
		o.SetAnnotations(kept)
	}
}

// reducePod keeps what an endpoint is: labels, addresses and readiness.
func reducePod(o *corev1.Pod) {
	o.Annotations, o.OwnerReferences = nil, nil
	o.Spec = corev1.PodSpec{HostNetwork: o.Spec.HostNetwork}
	conditions := slices.DeleteFunc(slices.Clone(o.Status.Conditions), func(c corev1.PodCondition) bool { return c.Type != corev1.PodReady })
	for i := range conditions {
		conditions[i] = corev1.PodCondition{Type: conditions[i].Type, Status: conditions[i].Status}
	}
	o.Status = corev1.PodStatus{Phase: o.Status.Phase, PodIP: o.Status.PodIP, PodIPs: o.Status.PodIPs, Conditions: conditions}
}

// namespaces describes the one kind of which the metadata is enough.
func namespaces() *kind {
	return &kind{
		name: "Namespace", resource: "namespaces", versions: []string{"v1"}, scope: metadata,
		reduce: func(object runtime.Object) metav1.Object {
			full, ok := object.(*metav1.PartialObjectMetadata)
			if !ok {
				return nil
			}
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: full.Name, UID: full.UID, Labels: full.Labels}}
		},
	}
}

// find returns the kind of a name, or nil.
func find(name string) *kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	return nil
}

// same reports whether two versions of an object show no difference.
func same(a, b metav1.Object) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && equality.Semantic.DeepEqual(a, b)
}
