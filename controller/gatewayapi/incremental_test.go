package gatewayapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/source"
)

func ref[T any](v T) *T { return &v }

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "shop", Generation: 1}
}

func key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: name}
}

// world is a State of n routes on one listener, each to a Service of its own with one endpoint.
func world(n int) *source.State {
	st := source.NewState()
	st.GatewayClasses[types.NamespacedName{Name: "gatehouse"}] = &gatewayv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: "gatehouse"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: DefaultControllerName}}
	st.Gateways[key("edge")] = &gatewayv1.Gateway{ObjectMeta: meta("edge"), Spec: gatewayv1.GatewaySpec{GatewayClassName: "gatehouse",
		Listeners: []gatewayv1.Listener{
			{Name: "http", Port: 8080, Protocol: gatewayv1.HTTPProtocolType},
			{Name: "other", Port: 8081, Protocol: gatewayv1.HTTPProtocolType, Hostname: ref(gatewayv1.Hostname("other.example"))},
		}}}
	for i := range n {
		addApp(st, fmt.Sprintf("app-%04d", i))
	}
	for _, kind := range source.Kinds() {
		st.Revisions[kind] = 1
	}
	return st
}

func addApp(st *source.State, name string) {
	st.HTTPRoutes[key(name)] = appRoute(name, name+".example")
	st.Services[key(name)] = &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	st.EndpointSlices[key(name)] = appSlice(name, "10.0.0.1")
}

func appRoute(name, host string) *gatewayv1.HTTPRoute {
	port := gatewayv1.PortNumber(80)
	backend := gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
		Name: gatewayv1.ObjectName(name), Port: &port}}}
	return &gatewayv1.HTTPRoute{ObjectMeta: meta(name), Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "edge"}}},
		Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(host)},
		Rules: []gatewayv1.HTTPRouteRule{
			{
				Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: ref("/api")},
					Headers: []gatewayv1.HTTPHeaderMatch{{Name: "x-tenant", Value: "red"}}}},
				Filters: []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier,
					RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Set: []gatewayv1.HTTPHeader{{Name: "x-env", Value: "prod"}}}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{backend},
			},
			{BackendRefs: []gatewayv1.HTTPBackendRef{backend}},
		},
	}}
}

func appSlice(name, address string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta(name), AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Name: ref("http"), Port: ref(int32(9000))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}}}}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	return slice
}

// edit returns a changed State, as a source makes it.
func edit(st *source.State, kind string, change func(*source.State)) *source.State {
	next := st.Clone()
	change(next)
	next.Revisions[kind]++
	return next
}

func translator(t testing.TB) *Translator { return New(Options{Filters: testFilters(t)}) }

// TestIncrementalEqualsFull walks through changes of every kind. After each, the Plan of a Translator that saw all of them is that
// of one that sees the State for the first time.
func TestIncrementalEqualsFull(t *testing.T) {
	const name = "app-0001"
	steps := []struct {
		name, kind string
		change     func(*source.State)
	}{
		{"route changes", "HTTPRoute", func(st *source.State) { st.HTTPRoutes[key(name)] = appRoute(name, "new.example") }},
		{"route is added", "HTTPRoute", func(st *source.State) { addApp(st, "late"); st.Revisions["Service"]++; st.Revisions["EndpointSlice"]++ }},
		{"route becomes older", "HTTPRoute", func(st *source.State) {
			obj := st.HTTPRoutes[key("late")].DeepCopy()
			obj.CreationTimestamp = metav1.NewTime(time.Unix(1, 0))
			st.HTTPRoutes[key("late")] = obj
		}},
		{"route is deleted", "HTTPRoute", func(st *source.State) { delete(st.HTTPRoutes, key("app-0000")) }},
		{"service disappears", "Service", func(st *source.State) { delete(st.Services, key(name)) }},
		{"service comes back with TLS", "Service", func(st *source.State) {
			st.Services[key(name)] = &corev1.Service{ObjectMeta: meta(name),
				Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: ref("https")}}}}
		}},
		{"a policy says whom to trust", "BackendTLSPolicy", func(st *source.State) {
			st.BackendTLSPolicies[key("tls")] = backendPolicy("tls", name, "ca")
		}},
		{"CA is not PEM", "ConfigMap", func(st *source.State) {
			st.ConfigMaps[key("ca")] = &corev1.ConfigMap{ObjectMeta: meta("ca"), Data: map[string]string{caKey: "nothing"}}
		}},
		{"CA goes", "ConfigMap", func(st *source.State) { delete(st.ConfigMaps, key("ca")) }},
		{"endpoints change", "EndpointSlice", func(st *source.State) { st.EndpointSlices[key("app-0002")] = appSlice("app-0002", "10.0.0.9") }},
		{"endpoints go", "EndpointSlice", func(st *source.State) { delete(st.EndpointSlices, key("app-0002")) }},
		{"route refers to another namespace", "HTTPRoute", func(st *source.State) {
			obj := appRoute(name, "x.example")
			obj.Spec.Rules[0].BackendRefs[0].Namespace = ref(gatewayv1.Namespace("far"))
			st.HTTPRoutes[key(name)] = obj
		}},
		{"grant is given", "ReferenceGrant", func(st *source.State) {
			st.ReferenceGrants[types.NamespacedName{Namespace: "far", Name: "g"}] = &gatewayv1beta1.ReferenceGrant{
				ObjectMeta: metav1.ObjectMeta{Name: "g", Namespace: "far"},
				Spec: gatewayv1beta1.ReferenceGrantSpec{
					From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: "shop"}},
					To:   []gatewayv1.ReferenceGrantTo{{Kind: "Service"}},
				}}
		}},
		{"grant is revoked", "ReferenceGrant", func(st *source.State) { clear(st.ReferenceGrants) }},
		{"listener hostname changes", "Gateway", func(st *source.State) {
			obj := st.Gateways[key("edge")].DeepCopy()
			obj.Spec.Listeners[1].Hostname = ref(gatewayv1.Hostname("app-0003.example"))
			st.Gateways[key("edge")] = obj
		}},
		{"class goes", "GatewayClass", func(st *source.State) { clear(st.GatewayClasses) }},
	}
	st := world(5)
	tr := translator(t)
	before := tr.Translate(st)
	for _, step := range steps {
		st = edit(st, step.kind, step.change)
		got, want := tr.Translate(st), translator(t).Translate(st)
		if diff := cmp.Diff(jsonOf(t, want), jsonOf(t, got)); diff != "" {
			t.Fatalf("%s: the incremental plan differs (-full +incremental):\n%s", step.name, diff)
		}
		if jsonOf(t, got) == jsonOf(t, before) {
			t.Errorf("%s: nothing changed; the step tests nothing", step.name)
		}
		before = got
	}
}

// pointers returns the routes and clusters of a plan by name.
func pointers(p *plan.Plan) map[string]any {
	out := make(map[string]any)
	for _, l := range p.Config.Listeners {
		out["listener "+l.Name] = l
		for _, r := range l.Routes {
			out["route "+r.Origin.Name] = r
		}
	}
	for _, c := range p.Config.Clusters {
		out["cluster "+c.Origin.Name] = c
	}
	return out
}

// TestPointersStay checks what changes identity with each kind of change, and that nothing else does.
func TestPointersStay(t *testing.T) {
	cases := map[string]struct {
		kind   string
		change func(*source.State)
		want   []string
	}{
		"the same State": {"", func(*source.State) {}, nil},
		"a route": {"HTTPRoute", func(st *source.State) { st.HTTPRoutes[key("app-0001")] = appRoute("app-0001", "new.example") },
			[]string{"listener shop/edge/http", "route app-0001"}},
		"a route's status": {"HTTPRoute", func(st *source.State) {
			obj := st.HTTPRoutes[key("app-0001")].DeepCopy()
			obj.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: "x"}}
			st.HTTPRoutes[key("app-0001")] = obj
		}, nil},
		"endpoints": {"EndpointSlice", func(st *source.State) { st.EndpointSlices[key("app-0001")] = appSlice("app-0001", "10.0.0.2") },
			[]string{"cluster app-0001"}},
		"endpoints that come to the same": {"EndpointSlice", func(st *source.State) {
			st.EndpointSlices[key("app-0001")] = appSlice("app-0001", "10.0.0.1")
		}, nil},
		"a service's protocol": {"Service", func(st *source.State) {
			obj := st.Services[key("app-0001")].DeepCopy()
			obj.Spec.Ports[0].AppProtocol = ref("kubernetes.io/h2c")
			st.Services[key("app-0001")] = obj
		}, []string{"cluster app-0001"}},
		"a service's labels": {"Service", func(st *source.State) {
			obj := st.Services[key("app-0001")].DeepCopy()
			obj.Labels = map[string]string{"a": "b"}
			st.Services[key("app-0001")] = obj
		}, nil},
		"a listener": {"Gateway", func(st *source.State) {
			obj := st.Gateways[key("edge")].DeepCopy()
			obj.Spec.Listeners[1].Port = 8082
			st.Gateways[key("edge")] = obj
		}, []string{"listener shop/edge/other"}},
		"an unused grant": {"ReferenceGrant", func(*source.State) {}, nil},
		"a route's place": {"", func(st *source.State) {
			st.Where[source.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "app-0001"}] = source.Location{File: "a.yaml", Line: 7}
		}, []string{"listener shop/edge/http", "route app-0001"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			st, tr := world(5), translator(t)
			before := pointers(tr.Translate(st))
			after := pointers(tr.Translate(edit(st, tc.kind, tc.change)))
			var got []string
			for _, name := range slices.Sorted(maps.Keys(after)) {
				if before[name] != after[name] {
					got = append(got, name)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("other pointers (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUncountedRevisions: a State that counts no revisions is never taken for the one before.
func TestUncountedRevisions(t *testing.T) {
	st := world(2)
	clear(st.Revisions)
	tr := translator(t)
	tr.Translate(st)
	next := st.Clone()
	clear(next.HTTPRoutes)
	if got := tr.Translate(next).Config.Listeners[0].Routes; len(got) != 0 {
		t.Errorf("%d routes are served after all were deleted", len(got))
	}
}

// TestForgets checks that what is gone is not remembered for good.
func TestForgets(t *testing.T) {
	st, tr := world(300), translator(t)
	tr.Translate(st)
	empty := edit(st, "HTTPRoute", func(st *source.State) { clear(st.HTTPRoutes) })
	tr.Translate(empty)
	if len(tr.routes) != 0 || len(tr.order) != 0 || len(tr.targets) != 0 {
		t.Errorf("remembers %d routes, %d in order, %d targets; want none", len(tr.routes), len(tr.order), len(tr.targets))
	}
}

const routesInWorld = 5000

// BenchmarkTranslateFull translates 5,000 routes, Services and EndpointSlices from nothing. Target: under 150 ms.
func BenchmarkTranslateFull(b *testing.B) {
	st := world(routesInWorld)
	b.ReportAllocs()
	for b.Loop() {
		translator(b).Translate(st)
	}
}

// benchmarkChange alternates between two States.
func benchmarkChange(b *testing.B, kind string, change func(*source.State)) {
	states := []*source.State{world(routesInWorld), nil}
	states[1] = edit(states[0], kind, change)
	tr := translator(b)
	tr.Translate(states[0])
	i := 0
	var last *plan.Plan
	b.ReportAllocs()
	for b.Loop() {
		i++
		last = tr.Translate(states[i%2])
	}
	if got := len(last.Config.Listeners[0].Routes); got != routesInWorld {
		b.Fatalf("%d routes are served, want %d", got, routesInWorld)
	}
}

// BenchmarkTranslateOneRoute changes one route among 5,000. Target: under 10 ms.
func BenchmarkTranslateOneRoute(b *testing.B) {
	benchmarkChange(b, "HTTPRoute", func(st *source.State) { st.HTTPRoutes[key("app-2500")] = appRoute("app-2500", "new.example") })
}

// BenchmarkTranslateOneEndpointSlice changes the endpoints of one Service among 5,000.
func BenchmarkTranslateOneEndpointSlice(b *testing.B) {
	benchmarkChange(b, "EndpointSlice", func(st *source.State) { st.EndpointSlices[key("app-2500")] = appSlice("app-2500", "10.0.0.2") })
}

// BenchmarkTranslateOneService changes one Service among 5,000.
func BenchmarkTranslateOneService(b *testing.B) {
	benchmarkChange(b, "Service", func(st *source.State) {
		obj := st.Services[key("app-2500")].DeepCopy()
		obj.Spec.Ports[0].AppProtocol = ref("kubernetes.io/h2c")
		st.Services[key("app-2500")] = obj
	})
}

// BenchmarkTranslateGateway changes the Gateway that 5,000 routes attach to.
func BenchmarkTranslateGateway(b *testing.B) {
	benchmarkChange(b, "Gateway", func(st *source.State) {
		obj := st.Gateways[key("edge")].DeepCopy()
		obj.Spec.Listeners[1].Port = 8082
		st.Gateways[key("edge")] = obj
	})
}
