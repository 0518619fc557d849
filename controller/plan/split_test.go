package plan

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/gateway/config"
)

// splitConfig is two Gateways with a cluster and certificates each, a cluster that both share, and a listener of a Gateway that is not
// accepted.
func splitConfig() *config.Config {
	to := func(names ...string) (list []config.Backend) {
		for _, name := range names {
			list = append(list, config.Backend{Cluster: name, Weight: 1})
		}
		return append(list, config.Backend{Invalid: "BackendNotFound", Weight: 1})
	}
	filter := func(cluster string) []config.Policy {
		return []config.Policy{{Kind: "Any", Payload: config.RawJSON(`{"to": [{"cluster": "` + cluster + `", "percent": 3}]}`)}}
	}
	shared := &config.Route{Origin: config.Origin{Kind: "HTTPRoute", Name: "shared"}, Rules: []*config.Rule{{Backends: to("shared")}}}
	web := &config.Route{Origin: config.Origin{Kind: "HTTPRoute", Name: "web"}, Rules: []*config.Rule{
		{Filters: filter("mirrored"), Backends: []config.Backend{{Cluster: "web", Weight: 1, Filters: filter("asked")}}}}}
	return &config.Config{
		Listeners: []*config.Listener{
			{Gateway: "a/b-c", Name: "a/b-c/https", TLS: &config.ListenerTLS{Certificates: []string{"a/server"}}, Filters: filter("checked"),
				Tracing: &config.Tracing{Cluster: "traces"}, Routes: []*config.Route{shared, web}},
			{Gateway: "a-b/c", Name: "a-b/c/tcp", Streams: []*config.StreamRoute{{Rule: "0", Backends: to("stream")}}},
			{Gateway: "a-b/c", Name: "a-b/c/http", Routes: []*config.Route{shared}},
			{Gateway: "gone/gone", Name: "gone/gone/http", Routes: []*config.Route{web}},
		},
		Clusters: []*config.Cluster{{Name: "asked"}, {Name: "checked"}, {Name: "mirrored"}, {Name: "shared"},
			{Name: "stream", TLS: &config.UpstreamTLS{ClientCertificate: "a-b/client"}}, {Name: "traces"}, {Name: "unused"}, {Name: "web"}},
		Certificates: []*config.Certificate{{Name: "a-b/client"}, {Name: "a/server"}, {Name: "a/unused"}},
	}
}

func gatewaysNamed(list ...[2]string) (out []Gateway) {
	for _, name := range list {
		out = append(out, Gateway{Origin: config.Origin{Kind: "Gateway", Namespace: name[0], Name: name[1]}})
	}
	return out
}

func TestSplit(t *testing.T) {
	c := splitConfig()
	got := Split(c, gatewaysNamed([2]string{"a", "b-c"}, [2]string{"a-b", "c"}, [2]string{"a", "empty"}), nil)
	type names struct{ Listeners, Clusters, Certificates []string }
	want := map[string]names{
		"a/b-c":   {[]string{"a/b-c/https"}, []string{"asked", "checked", "mirrored", "shared", "traces", "web"}, []string{"a/server"}},
		"a-b/c":   {[]string{"a-b/c/tcp", "a-b/c/http"}, []string{"shared", "stream"}, []string{"a-b/client"}},
		"a/empty": {},
	}
	seen := map[string]names{}
	for key, part := range got {
		var n names
		for _, l := range part.Listeners {
			n.Listeners = append(n.Listeners, l.Name)
		}
		for _, cluster := range part.Clusters {
			n.Clusters = append(n.Clusters, cluster.Name)
		}
		for _, cert := range part.Certificates {
			n.Certificates = append(n.Certificates, cert.Name)
		}
		seen[key] = n
		if err := part.Validate(); err != nil && key != "a/b-c" && key != "a-b/c" { // the listeners here have no port
			t.Errorf("%s: %v", key, err)
		}
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
}

// TestSplitKeepsPointers changes one thing at a time and sees which parts are others.
func TestSplitKeepsPointers(t *testing.T) {
	gateways := gatewaysNamed([2]string{"a", "b-c"}, [2]string{"a-b", "c"})
	cases := map[string]struct {
		change func(*config.Config)
		want   []string
	}{
		"nothing":           {func(*config.Config) {}, nil},
		"an unused cluster": {func(c *config.Config) { c.Clusters[6] = &config.Cluster{Name: "unused", Protocol: config.UpstreamH2C} }, nil},
		"a shared cluster":  {func(c *config.Config) { c.Clusters[3] = &config.Cluster{Name: "shared"} }, []string{"a-b/c", "a/b-c"}},
		"a certificate":     {func(c *config.Config) { c.Certificates[1] = &config.Certificate{Name: "a/server"} }, []string{"a/b-c"}},
		"a client's":        {func(c *config.Config) { c.Certificates[0] = &config.Certificate{Name: "a-b/client"} }, []string{"a-b/c"}},
		"a listener":        {func(c *config.Config) { l := *c.Listeners[1]; c.Listeners[1] = &l }, []string{"a-b/c"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := splitConfig()
			first := Split(before, gateways, nil)
			next := *before
			next.Listeners, next.Clusters = slices.Clone(before.Listeners), slices.Clone(before.Clusters)
			next.Certificates = slices.Clone(before.Certificates)
			tc.change(&next)
			second := Split(&next, gateways, first)
			var got []string
			for _, key := range slices.Sorted(maps.Keys(second)) {
				if first[key] != second[key] {
					got = append(got, key)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("other pointers (-want +got):\n%s", diff)
			}
		})
	}
}

// BenchmarkSplit splits 1,000 Gateways of five routes and clusters each.
func BenchmarkSplit(b *testing.B) {
	c := &config.Config{}
	var gateways []Gateway
	for i := range 1000 {
		name := fmt.Sprintf("g-%04d", i)
		gateways = append(gateways, gatewaysNamed([2]string{"n", name})...)
		l := &config.Listener{Gateway: "n/" + name, Name: "n/" + name + "/http"}
		for j := range 5 {
			cluster := fmt.Sprintf("Service/%s/app-%d/80", name, j)
			c.Clusters = append(c.Clusters, &config.Cluster{Name: cluster})
			l.Routes = append(l.Routes, &config.Route{Rules: []*config.Rule{{Backends: []config.Backend{{Cluster: cluster, Weight: 1}}}}})
		}
		c.Listeners = append(c.Listeners, l)
	}
	previous := Split(c, gateways, nil)
	b.ReportAllocs()
	for b.Loop() {
		if got := Split(c, gateways, previous); len(got) != len(gateways) || got["n/g-0001"] != previous["n/g-0001"] {
			b.Fatal("another part")
		}
	}
}
