package gatewayapi

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
)

// These are about objects of one namespace that would keep a Gateway of many from serving or changing.

// TestTooManyCAs: a policy whose CAs are too many to send closes its own backends, and one below the bound does not.
func TestTooManyCAs(t *testing.T) {
	cert, _ := keyPair(t)
	half := strings.Repeat(cert, maxCAs/2/len(cert))
	tests := map[string]struct {
		refs   int
		secure bool
	}{
		"just below": {2, true},
		"over":       {3, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			st := world(2)
			st.ConfigMaps[key("ca")] = caMap("ca", half)
			policy := backendPolicy("tls", "app-0000", "ca")
			for len(policy.Spec.Validation.CACertificateRefs) < tt.refs {
				policy.Spec.Validation.CACertificateRefs = append(policy.Spec.Validation.CACertificateRefs, policy.Spec.Validation.CACertificateRefs[0])
			}
			st.BackendTLSPolicies[key("tls")] = policy
			got := translator(t).Translate(st)
			if secure := len(got.Config.Clusters) == 2 && got.Config.Clusters[0].TLS != nil; secure != tt.secure {
				t.Errorf("secure is %v: %d clusters, %v", secure, len(got.Config.Clusters), got.Problems)
			}
			if len(got.Config.Clusters) == 0 {
				t.Error("the other route lost its backend")
			}
		})
	}
}

// TestTooManyEndpoints: the addresses beyond the bound are left out, with a word about it.
func TestTooManyEndpoints(t *testing.T) {
	st := world(1)
	service := types.NamespacedName{Namespace: "shop", Name: "app-0000"}
	var slice *discoveryv1.EndpointSlice
	for _, s := range st.EndpointSlices {
		if s.Namespace == service.Namespace && s.Labels[discoveryv1.LabelServiceName] == service.Name {
			slice = s
		}
	}
	if slice == nil {
		t.Fatal("the world has no EndpointSlice")
	}
	slice.Endpoints = nil
	for i := range maxEndpoints + 1 {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}})
	}
	got := translator(t).Translate(st)
	if n := len(got.Config.Clusters[0].Endpoints); n != maxEndpoints || len(got.Problems) != 1 {
		t.Errorf("%d endpoints, problems %v", n, got.Problems)
	}
}

// TestSessionHeaders: a session's token does not go where it would frame the message.
func TestSessionHeaders(t *testing.T) {
	header := gatewayv1.HeaderBasedSessionPersistence
	for name, want := range map[string]problem.Reason{
		"X-Session": "", "content-lengths": "", "Content-Length": problem.Invalid, "transfer-encoding": problem.Invalid, "TE": problem.Invalid,
		"Connection": problem.Invalid, "Host": problem.Invalid,
	} {
		spec := &gatewayv1.SessionPersistence{Type: &header, Header: &gatewayv1.HeaderConfig{Name: gatewayv1.HeaderName(name)}}
		if _, wrong := translator(t).sessionPersistence(spec, sessionOwner{uid: "u"}); wrong.reason != want {
			t.Errorf("%s: %q, want %q", name, wrong.reason, want)
		}
	}
}

// TestNamesLeadOut: what a name outside resolves to may be this machine in standalone mode alone.
func TestNamesLeadOut(t *testing.T) {
	for _, standalone := range []bool{true, false} {
		st := world(1)
		service := st.Services[key("app-0000")].DeepCopy()
		service.Spec.Type, service.Spec.ExternalName = corev1.ServiceTypeExternalName, "api.example.com"
		st.Services[key("app-0000")] = service
		got := New(Options{Filters: testFilters(t), Standalone: standalone}).Translate(st)
		if len(got.Config.Clusters) != 1 || got.Config.Clusters[0].DNS == nil || got.Config.Clusters[0].DNS.Loopback != standalone {
			t.Errorf("standalone %v: %+v", standalone, got.Config.Clusters)
		}
	}
}
