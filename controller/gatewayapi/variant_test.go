package gatewayapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

// TestCertificatesStayWithTheirGateway: two Gateways share a route, and the proxies of the one get no key of the other, nor a cluster that
// presents it.
func TestCertificatesStayWithTheirGateway(t *testing.T) {
	cert, private := keyPair(t)
	st := world(2)
	st.ConfigMaps[key("ca")] = caMap("ca", cert)
	st.Secrets[key("client")] = tlsSecret("shop", "client", cert, private)
	st.BackendTLSPolicies[key("tls")] = backendPolicy("tls", "app-0000", "ca")
	changeGateway(presenting("shop", "client"))(st)
	plain := st.Gateways[key("edge")].DeepCopy()
	plain.Name, plain.Spec.TLS = "plain", nil
	st.Gateways[key("plain")] = plain
	for name, route := range st.HTTPRoutes {
		both := route.DeepCopy()
		both.Spec.ParentRefs = append(both.Spec.ParentRefs, gatewayv1.ParentReference{Name: "plain"})
		st.HTTPRoutes[name] = both
	}
	p := translator(t).Translate(st)
	parts := plan.Split(p.Config, p.Gateways, nil)
	got := make(map[string][]string)
	for name, part := range parts {
		if err := part.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range part.Clusters {
			got[name] = append(got[name], c.Name)
		}
		for _, c := range part.Certificates {
			got[name] = append(got[name], "certificate "+c.Name)
		}
	}
	want := map[string][]string{
		"shop/edge":  {"Service/shop/app-0000/80/client/shop/client", "Service/shop/app-0001/80", "certificate shop/client"},
		"shop/plain": {"Service/shop/app-0000/80", "Service/shop/app-0001/80"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the Gateways get (-want +got):\n%s", diff)
	}
}

func TestRenamePolicies(t *testing.T) {
	names := map[string]string{"a": "a/client/n/s"}
	cases := map[string]struct{ payload, want string }{
		"at the top":         {`{"cluster":"a"}`, `{"cluster":"a/client/n/s"}`},
		"below":              {`{"to":[{"cluster":"a","percent":12345678901234567890}]}`, `{"to":[{"cluster":"a/client/n/s","percent":12345678901234567890}]}`},
		"another cluster":    {`{"cluster": "b"}`, `{"cluster": "b"}`},
		"another field":      {`{"name":"a","cluster":"c"}`, `{"name":"a","cluster":"c"}`},
		"not a name":         {`{"cluster":{"cluster":"a"}}`, `{"cluster":{"cluster":"a/client/n/s"}}`},
		"none":               {`{"x":1}`, `{"x":1}`},
		"empty":              {``, ``},
		"no JSON, untouched": {`{"cluster":`, `{"cluster":`},
	}
	for name, tc := range cases {
		list := []config.Policy{{Kind: "other", Payload: config.RawJSON(`{"cluster":"z"}`)}, {Kind: "k", Payload: config.RawJSON(tc.payload)}}
		got := renamePolicies(list, names)
		if string(got[1].Payload) != tc.want || string(got[0].Payload) != `{"cluster":"z"}` {
			t.Errorf("%s: got %s", name, got[1].Payload)
		}
		if string(list[1].Payload) != tc.payload {
			t.Errorf("%s: the original is %s now", name, list[1].Payload)
		}
	}
}
