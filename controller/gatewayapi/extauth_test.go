package gatewayapi

import (
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/filters"
)

// TestListenerAuthFollowsItsServer: a listener's filter is translated again when what its backendRef leads to comes, goes or is forbidden, and
// not otherwise.
func TestListenerAuthFollowsItsServer(t *testing.T) {
	st := world(3)
	port := gatewayv1.PortNumber(80)
	gw := st.Gateways[key("edge")].DeepCopy()
	gw.Spec.Listeners[0].Filters = &gatewayv1.ListenerFilters{Requests: []gatewayv1.ListenerFilter{{
		Type: gatewayv1.ListenerFilterExternalAuth, ExternalAuth: &gatewayv1.HTTPExternalAuthFilter{
			ExternalAuthProtocol: gatewayv1.HTTPRouteExternalAuthHTTPProtocol,
			BackendRef:           gatewayv1.BackendObjectReference{Name: "checker", Port: &port}},
	}}}
	st.Gateways[key("edge")] = gw
	tr := New(Options{Filters: testFilters(t), Standalone: true})
	check := func(step, cluster string) {
		t.Helper()
		got := tr.Translate(st)
		l := got.Config.Listeners[0]
		if len(l.Filters) != 1 {
			t.Fatalf("%s: filters %v", step, l.Filters)
		}
		c, err := filters.Decode[extauthz.Config](l.Filters[0].Payload)
		if err != nil || c.Cluster != cluster || (c.Invalid == "") != (cluster != "") {
			t.Errorf("%s: the filter asks %+v, %v; want %q", step, c, err, cluster)
		}
		found := false
		for _, one := range got.Config.Clusters {
			found = found || strings.HasPrefix(one.Name, "Service/shop/checker/")
		}
		if found != (cluster != "") {
			t.Errorf("%s: the cluster is there: %v", step, found)
		}
		if again := tr.Translate(st); again.Config.Listeners[0] != l {
			t.Errorf("%s: the listener was made again although nothing changed", step)
		}
	}
	change := func(kinds ...string) {
		for _, kind := range kinds {
			st.Revisions[kind]++
		}
	}
	check("no server", "")
	addApp(st, "checker")
	delete(st.HTTPRoutes, key("checker"))
	change(source.Kinds()...)
	check("a server comes", "Service/shop/checker/80")
	delete(st.Services, key("checker"))
	change(source.Kinds()...)
	check("and goes", "")
}
