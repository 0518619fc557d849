package gatewayapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// everyKind is a State with n routes of every kind, each to a Service of its own, under a Gateway and a ListenerSet.
func everyKind(n int) *source.State {
	st := world(n)
	edge := st.Gateways[key("edge")]
	all := gatewayv1.NamespacesFromAll
	edge.Spec.AllowedListeners = &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: &all}}
	pass := gatewayv1.TLSModePassthrough
	edge.Spec.Listeners = append(edge.Spec.Listeners,
		gatewayv1.Listener{Name: "grpc", Port: 8082, Protocol: gatewayv1.HTTPProtocolType},
		gatewayv1.Listener{Name: "tls", Port: 8443, Protocol: gatewayv1.TLSProtocolType, TLS: &gatewayv1.ListenerTLSConfig{Mode: &pass}},
		gatewayv1.Listener{Name: "tcp", Port: 9000, Protocol: gatewayv1.TCPProtocolType},
		gatewayv1.Listener{Name: "udp", Port: 9000, Protocol: gatewayv1.UDPProtocolType})
	st.ListenerSets[key("more")] = &gatewayv1.ListenerSet{ObjectMeta: meta("more"), Spec: gatewayv1.ListenerSetSpec{
		ParentRef: gatewayv1.ParentGatewayReference{Name: "edge"},
		Listeners: []gatewayv1.ListenerEntry{{Name: "http", Port: 8083, Protocol: gatewayv1.HTTPProtocolType},
			{Name: "tcp", Port: 9001, Protocol: gatewayv1.TCPProtocolType}}}}
	for i := range n {
		addStreams(st, fmt.Sprintf("app-%04d", i))
	}
	for _, kind := range source.Kinds() {
		st.Revisions[kind] = 1
	}
	return st
}

func under(section string) gatewayv1.CommonRouteSpec {
	refs := []gatewayv1.ParentReference{{Name: "edge", SectionName: ref(gatewayv1.SectionName(section))}}
	if section == "tcp" || section == "grpc" {
		refs = append(refs, gatewayv1.ParentReference{Kind: ref(gatewayv1.Kind("ListenerSet")), Name: "more"})
	}
	return gatewayv1.CommonRouteSpec{ParentRefs: refs}
}

func backendOf(name string) gatewayv1.BackendRef {
	return gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
		Name: gatewayv1.ObjectName(name), Port: ref(gatewayv1.PortNumber(80))}}
}

// addStreams adds a route of every kind but HTTPRoute for an application, whose Service gets a UDP port beside its TCP port.
func addStreams(st *source.State, name string) {
	service := st.Services[key(name)].DeepCopy()
	service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: "udp", Port: 80, Protocol: corev1.ProtocolUDP})
	st.Services[key(name)] = service
	backends := []gatewayv1.BackendRef{backendOf(name)}
	st.GRPCRoutes[key(name)] = grpcCalls(name, name+".grpc.example")
	st.TLSRoutes[key(name)] = &gatewayv1.TLSRoute{ObjectMeta: meta(name), Spec: gatewayv1.TLSRouteSpec{CommonRouteSpec: under("tls"),
		Hostnames: []gatewayv1.Hostname{gatewayv1.Hostname(name + ".example")}, Rules: []gatewayv1.TLSRouteRule{{BackendRefs: backends}}}}
	st.TCPRoutes[key(name)] = &gatewayv1.TCPRoute{ObjectMeta: meta(name), Spec: gatewayv1.TCPRouteSpec{CommonRouteSpec: under("tcp"),
		Rules: []gatewayv1.TCPRouteRule{{BackendRefs: backends}}}}
	st.UDPRoutes[key(name)] = &gatewayv1.UDPRoute{ObjectMeta: meta(name), Spec: gatewayv1.UDPRouteSpec{CommonRouteSpec: under("udp"),
		Rules: []gatewayv1.UDPRouteRule{{BackendRefs: backends}}}}
}

func grpcCalls(name, host string) *gatewayv1.GRPCRoute {
	return &gatewayv1.GRPCRoute{ObjectMeta: meta(name), Spec: gatewayv1.GRPCRouteSpec{CommonRouteSpec: under("grpc"),
		Hostnames: []gatewayv1.Hostname{gatewayv1.Hostname(host)},
		Rules: []gatewayv1.GRPCRouteRule{{
			Matches:     []gatewayv1.GRPCRouteMatch{{Method: &gatewayv1.GRPCMethodMatch{Service: ref("shop.Cart")}}},
			BackendRefs: []gatewayv1.GRPCBackendRef{{BackendRef: backendOf(name)}}}}}}
}

// TestIncrementalEqualsFullOfEveryKind is TestIncrementalEqualsFull for the kinds that are not HTTPRoute.
func TestIncrementalEqualsFullOfEveryKind(t *testing.T) {
	const name = "app-0001"
	steps := []struct {
		name, kind string
		change     func(*source.State)
	}{
		{"gRPC route changes", "GRPCRoute", func(st *source.State) { st.GRPCRoutes[key(name)] = grpcCalls(name, "new.example") }},
		{"gRPC route takes the hostname of an older HTTPRoute", "GRPCRoute", func(st *source.State) {
			obj := grpcCalls(name, "app-0002.example")
			obj.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "edge", SectionName: ref(gatewayv1.SectionName("http"))}}
			obj.CreationTimestamp = metav1.NewTime(time.Unix(5, 0))
			st.GRPCRoutes[key(name)] = obj
		}},
		{"that HTTPRoute becomes younger", "HTTPRoute", func(st *source.State) {
			obj := appRoute("app-0002", "app-0002.example")
			obj.CreationTimestamp = metav1.NewTime(time.Unix(9, 0))
			st.HTTPRoutes[key("app-0002")] = obj
		}},
		{"that HTTPRoute goes", "HTTPRoute", func(st *source.State) { delete(st.HTTPRoutes, key("app-0002")) }},
		{"service says that it speaks HTTP/2", "Service", func(st *source.State) {
			obj := st.Services[key(name)].DeepCopy()
			obj.Spec.Ports[0].AppProtocol = ref("kubernetes.io/h2c")
			st.Services[key(name)] = obj
		}},
		{"service loses its UDP port", "Service", func(st *source.State) {
			obj := st.Services[key(name)].DeepCopy()
			obj.Spec.Ports = obj.Spec.Ports[:1]
			st.Services[key(name)] = obj
		}},
		{"TLS route moves", "TLSRoute", func(st *source.State) {
			obj := st.TLSRoutes[key(name)].DeepCopy()
			obj.Spec.Hostnames = []gatewayv1.Hostname{"*.else.example"}
			st.TLSRoutes[key(name)] = obj
		}},
		{"TCP route becomes the oldest", "TCPRoute", func(st *source.State) {
			obj := st.TCPRoutes[key("app-0000")].DeepCopy()
			obj.CreationTimestamp = metav1.NewTime(time.Unix(7, 0))
			st.TCPRoutes[key("app-0000")] = obj
		}},
		{"UDP route goes", "UDPRoute", func(st *source.State) { delete(st.UDPRoutes, key("app-0000")) }},
		{"set loses a listener", "ListenerSet", func(st *source.State) {
			obj := st.ListenerSets[key("more")].DeepCopy()
			obj.Spec.Listeners = obj.Spec.Listeners[:1]
			st.ListenerSets[key("more")] = obj
		}},
		{"an older set takes its port", "ListenerSet", func(st *source.State) {
			obj := st.ListenerSets[key("more")].DeepCopy()
			obj.CreationTimestamp = metav1.NewTime(time.Unix(8, 0))
			st.ListenerSets[key("more")] = obj
			old := obj.DeepCopy()
			old.Name, old.CreationTimestamp = "old", metav1.NewTime(time.Unix(7, 0))
			st.ListenerSets[key("old")] = old
		}},
		{"gateway becomes the default", "Gateway", func(st *source.State) {
			obj := st.Gateways[key("edge")].DeepCopy()
			obj.Spec.DefaultScope = gatewayv1.GatewayDefaultScopeAll
			st.Gateways[key("edge")] = obj
		}},
		{"route asks for default gateways", "TCPRoute", func(st *source.State) {
			obj := st.TCPRoutes[key(name)].DeepCopy()
			obj.Spec.ParentRefs, obj.Spec.UseDefaultGateways = nil, gatewayv1.GatewayDefaultScopeAll
			st.TCPRoutes[key(name)] = obj
		}},
		{"gateway admits no sets", "Gateway", func(st *source.State) {
			obj := st.Gateways[key("edge")].DeepCopy()
			obj.Spec.AllowedListeners = nil
			st.Gateways[key("edge")] = obj
		}},
		{"a certificate is wanted", "Gateway", func(st *source.State) {
			obj := st.Gateways[key("edge")].DeepCopy()
			obj.Spec.Listeners[3].TLS = &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "cert"}}}
			st.Gateways[key("edge")] = obj
		}},
		{"a CA is wanted", "BackendTLSPolicy", func(st *source.State) {
			st.BackendTLSPolicies[key("tls")] = backendPolicy("tls", "app-0003", "ca")
		}},
	}
	st := everyKind(5)
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
	var wants []string
	for _, w := range before.Wants {
		wants = append(wants, w.String())
	}
	if diff := cmp.Diff([]string{"ConfigMap/shop/ca", "Secret/shop/cert"}, wants); diff != "" {
		t.Errorf("wants (-want +got):\n%s", diff)
	}
}

// TestOneRouteCostsOneTranslation changes one route of each kind. A route that is translated again has other uses.
func TestOneRouteCostsOneTranslation(t *testing.T) {
	const name = "app-0001"
	newer := metav1.NewTime(time.Unix(1, 0))
	cases := map[string]func(*source.State){
		"HTTPRoute": func(st *source.State) { st.HTTPRoutes[key(name)] = appRoute(name, "new.example") },
		"GRPCRoute": func(st *source.State) { st.GRPCRoutes[key(name)] = grpcCalls(name, "new.example") },
		"TLSRoute": func(st *source.State) {
			st.TLSRoutes[key(name)] = st.TLSRoutes[key(name)].DeepCopy()
			st.TLSRoutes[key(name)].CreationTimestamp = newer
		},
		"TCPRoute": func(st *source.State) {
			st.TCPRoutes[key(name)] = st.TCPRoutes[key(name)].DeepCopy()
			st.TCPRoutes[key(name)].CreationTimestamp = newer
		},
		"UDPRoute": func(st *source.State) {
			st.UDPRoutes[key(name)] = st.UDPRoutes[key(name)].DeepCopy()
			st.UDPRoutes[key(name)].CreationTimestamp = newer
		},
	}
	for kind, change := range cases {
		t.Run(kind, func(t *testing.T) {
			st, tr := everyKind(4), translator(t)
			first := tr.Translate(st)
			uses := make(map[routeKey]*backendUse)
			for key, rt := range tr.routes {
				uses[key] = &rt.uses[0]
			}
			if len(uses) != 20 {
				t.Fatalf("%d routes, want 20", len(uses))
			}
			second := tr.Translate(edit(st, kind, change))
			var again []routeKey
			for key, rt := range tr.routes {
				if &rt.uses[0] != uses[key] {
					again = append(again, key)
				}
			}
			if diff := cmp.Diff([]routeKey{{kind, "shop", name}}, again, cmp.AllowUnexported(routeKey{})); diff != "" {
				t.Errorf("translated again (-want +got):\n%s", diff)
			}
			for i := range first.Config.Clusters {
				if first.Config.Clusters[i] != second.Config.Clusters[i] {
					t.Errorf("cluster %s is another pointer", first.Config.Clusters[i].Name)
				}
			}
			old, now := streamsOf(first.Config.Listeners), streamsOf(second.Config.Listeners)
			for name := range now {
				if changed := old[name] != now[name]; changed != (name == kind+"/shop/app-0001") {
					t.Errorf("stream %s: another pointer is %t", name, changed)
				}
			}
		})
	}
}

// streamsOf returns the streams of listeners by their origin.
func streamsOf(listeners []*config.Listener) map[string]*config.StreamRoute {
	out := make(map[string]*config.StreamRoute)
	for _, l := range listeners {
		for _, s := range l.Streams {
			out[s.Origin.String()] = s
		}
	}
	return out
}

// TestSupportedFeatures: every feature but those of the mesh, and nothing that the API does not know.
func TestSupportedFeatures(t *testing.T) {
	want := make(map[string]bool)
	for _, feature := range features.AllFeatures.UnsortedList() {
		if name := string(feature.Name); name != "Mesh" && !slices.ContainsFunc(features.MeshExtendedFeatures.UnsortedList(), func(f features.Feature) bool {
			return f.Name == feature.Name
		}) {
			want[name] = true
		}
	}
	got := SupportedFeatures()
	if !slices.IsSorted(got) {
		t.Error("not sorted")
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got); diff != "" {
		t.Errorf("features (-API +ours):\n%s", diff)
	}
}

// TestForgetsRoutesOfEveryKind: deleted routes are gone, whatever their kind, and the others stay.
func TestForgetsRoutesOfEveryKind(t *testing.T) {
	st, tr := everyKind(3), translator(t)
	tr.Translate(st)
	for left, kind := range []string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"} {
		st = edit(st, kind, func(st *source.State) {
			if err := st.Replace(kind, nil); err != nil {
				t.Fatal(err)
			}
		})
		tr.Translate(st)
		if want := 3 * (4 - left); len(tr.routes) != want || len(tr.order) != want {
			t.Errorf("without %ss it remembers %d routes, %d in order; want %d", kind, len(tr.routes), len(tr.order), want)
		}
	}
}

// BenchmarkTranslateBothWebKinds is world with GRPCRoutes beside HTTPRoutes on one listener, the costly case of kinds in conflict.
func BenchmarkTranslateBothWebKinds(b *testing.B) {
	st := world(routesInWorld)
	for i := range routesInWorld {
		obj := grpcCalls(fmt.Sprintf("app-%04d", i), fmt.Sprintf("app-%04d.grpc.example", i))
		obj.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "edge"}}
		st.GRPCRoutes[types.NamespacedName{Namespace: "shop", Name: obj.Name}] = obj
	}
	states := []*source.State{st, edit(st, "GRPCRoute", func(st *source.State) {
		obj := grpcCalls("app-2500", "new.grpc.example")
		obj.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "edge"}}
		st.GRPCRoutes[key("app-2500")] = obj
	})}
	tr := translator(b)
	tr.Translate(states[0])
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		tr.Translate(states[i%2])
	}
}
