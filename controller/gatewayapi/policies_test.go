package gatewayapi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// keyPair makes a self-signed certificate with its key, both PEM.
func keyPair(t testing.TB) (certificate, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(4_000_000_000, 0),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// backendPolicy is a BackendTLSPolicy in namespace shop for all ports of a Service, whose CA is in a ConfigMap.
func backendPolicy(name, service, ca string) *gatewayv1.BackendTLSPolicy {
	return &gatewayv1.BackendTLSPolicy{ObjectMeta: meta(name), Spec: gatewayv1.BackendTLSPolicySpec{
		TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{
			LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{Kind: "Service", Name: gatewayv1.ObjectName(service)},
		}},
		Validation: gatewayv1.BackendTLSPolicyValidation{
			Hostname:          gatewayv1.PreciseHostname(service + ".example"),
			CACertificateRefs: []gatewayv1.LocalObjectReference{{Kind: "ConfigMap", Name: gatewayv1.ObjectName(ca)}},
		},
	}}
}

func caMap(name, text string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: meta(name), Data: map[string]string{caKey: text}}
}

func tlsSecret(namespace, name, certificate, private string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{
		corev1.TLSCertKey: []byte(certificate), corev1.TLSPrivateKeyKey: []byte(private)}}
}

func pod(name, ip string, ready bool, labels map[string]string) *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: meta(name), Status: corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning}}
	out.Labels = labels
	if ready {
		out.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return out
}

func selecting(labels map[string]string) *gatewayxv1alpha1.XBackend {
	match := make(map[gatewayv1.LabelKey]gatewayv1.LabelValue)
	for k, v := range labels {
		match[gatewayv1.LabelKey(k)] = gatewayv1.LabelValue(v)
	}
	return &gatewayxv1alpha1.XBackend{ObjectMeta: meta("pods"), Spec: gatewayxv1alpha1.BackendSpec{
		Type: gatewayxv1alpha1.BackendTypeEndpointSelector, Port: gatewayxv1alpha1.BackendPort{Number: 8080},
		EndpointSelector: &gatewayxv1alpha1.EndpointSelectorBackend{LabelSelector: gatewayxv1alpha1.LabelSelector{MatchLabels: match}},
	}}
}

// toXBackend sends all requests of a route to an XBackend.
func toXBackend(route, name string) *gatewayv1.HTTPRoute {
	obj := appRoute(route, route+".example")
	for i := range obj.Spec.Rules {
		obj.Spec.Rules[i].BackendRefs = []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Group: ref(gatewayv1.Group(experimentalGroup)),
				Kind: ref(gatewayv1.Kind("XBackend")), Name: gatewayv1.ObjectName(name)}}}}
	}
	return obj
}

func changeGateway(change func(*gatewayv1.Gateway)) func(*source.State) {
	return func(st *source.State) {
		obj := st.Gateways[key("edge")].DeepCopy()
		change(obj)
		st.Gateways[key("edge")] = obj
	}
}

func presenting(namespace, name string) func(*gatewayv1.Gateway) {
	return func(g *gatewayv1.Gateway) {
		g.Spec.TLS = &gatewayv1.GatewayTLSConfig{Backend: &gatewayv1.GatewayBackendTLS{ClientCertificateRef: &gatewayv1.SecretObjectReference{
			Name: gatewayv1.ObjectName(name), Namespace: ref(gatewayv1.Namespace(namespace))}}}
	}
}

func grantSecrets(from string) *gatewayv1beta1.ReferenceGrant {
	return &gatewayv1beta1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Name: "g", Namespace: "far"}, Spec: gatewayv1beta1.ReferenceGrantSpec{
		From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: gatewayv1.Kind(from), Namespace: "shop"}},
		To:   []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}},
	}}
}

// TestIncrementalPolicies is TestIncrementalEqualsFull for policies and what they name.
func TestIncrementalPolicies(t *testing.T) {
	const name = "app-0001"
	cert, private := keyPair(t)
	renewed, renewedKey := keyPair(t)
	far := types.NamespacedName{Namespace: "far", Name: "client"}
	steps := []struct {
		name, kind string
		change     func(*source.State)
	}{
		{"a policy names a CA that is not there", "BackendTLSPolicy", func(st *source.State) {
			st.BackendTLSPolicies[key("tls")] = backendPolicy("tls", name, "ca")
		}},
		{"the CA comes", "ConfigMap", func(st *source.State) { st.ConfigMaps[key("ca")] = caMap("ca", cert) }},
		{"the CA changes", "ConfigMap", func(st *source.State) { st.ConfigMaps[key("ca")] = caMap("ca", renewed) }},
		{"an older policy", "BackendTLSPolicy", func(st *source.State) {
			younger := st.BackendTLSPolicies[key("tls")].DeepCopy()
			younger.CreationTimestamp = metav1.NewTime(time.Unix(9, 0))
			st.BackendTLSPolicies[key("tls")] = younger
			st.BackendTLSPolicies[key("z-older")] = backendPolicy("z-older", name, "ca")
		}},
		{"the older policy is for a port", "BackendTLSPolicy", func(st *source.State) {
			obj := st.BackendTLSPolicies[key("z-older")].DeepCopy()
			obj.Spec.TargetRefs[0].SectionName = ref(gatewayv1.SectionName("http"))
			st.BackendTLSPolicies[key("z-older")] = obj
		}},
		{"a trust bundle that is not there", "BackendTLSPolicy", func(st *source.State) {
			obj := st.BackendTLSPolicies[key("z-older")].DeepCopy()
			obj.Spec.Validation.CACertificateRefs = []gatewayv1.LocalObjectReference{{Group: trustBundleGroup, Kind: "ClusterTrustBundle", Name: "roots"}}
			st.BackendTLSPolicies[key("z-older")] = obj
		}},
		{"the trust bundle comes", "ClusterTrustBundle", func(st *source.State) {
			st.ClusterTrustBundles[types.NamespacedName{Name: "roots"}] = &certificatesv1beta1.ClusterTrustBundle{
				ObjectMeta: metav1.ObjectMeta{Name: "roots"}, Spec: certificatesv1beta1.ClusterTrustBundleSpec{TrustBundle: cert}}
		}},
		{"the gateway presents a certificate that is not there", "Gateway", changeGateway(presenting("shop", "client"))},
		{"the certificate comes", "Secret", func(st *source.State) { st.Secrets[key("client")] = tlsSecret("shop", "client", cert, private) }},
		{"the certificate is renewed", "Secret", func(st *source.State) {
			st.Secrets[key("client")] = tlsSecret("shop", "client", renewed, renewedKey)
		}},
		{"it presents one of another namespace", "Gateway", func(st *source.State) {
			st.Secrets[far] = tlsSecret("far", "client", cert, private)
			changeGateway(presenting("far", "client"))(st)
			st.Revisions["Secret"]++
		}},
		{"a grant lets it", "ReferenceGrant", func(st *source.State) {
			st.ReferenceGrants[types.NamespacedName{Namespace: "far", Name: "g"}] = grantSecrets("Gateway")
		}},
		{"the grant is revoked", "ReferenceGrant", func(st *source.State) { clear(st.ReferenceGrants) }},
		{"the policies go", "BackendTLSPolicy", func(st *source.State) { clear(st.BackendTLSPolicies) }},
		{"a retry budget", "XBackendTrafficPolicy", func(st *source.State) {
			st.XBackendTrafficPolicies[key("retries")] = &gatewayxv1alpha1.XBackendTrafficPolicy{ObjectMeta: meta("retries"),
				Spec: gatewayxv1alpha1.BackendTrafficPolicySpec{
					TargetRefs:      []gatewayv1.LocalPolicyTargetReference{{Kind: "Service", Name: name}},
					RetryConstraint: &gatewayxv1alpha1.RetryConstraint{},
				}}
		}},
		{"another retry budget", "XBackendTrafficPolicy", func(st *source.State) {
			obj := st.XBackendTrafficPolicies[key("retries")].DeepCopy()
			obj.Spec.RetryConstraint.Budget = &gatewayxv1alpha1.BudgetDetails{Percent: ref(5)}
			st.XBackendTrafficPolicies[key("retries")] = obj
		}},
		{"the retry budget goes", "XBackendTrafficPolicy", func(st *source.State) { clear(st.XBackendTrafficPolicies) }},
		{"pods are the backend", "XBackend", func(st *source.State) {
			st.XBackends[key("pods")] = selecting(map[string]string{"app": "x"})
			st.HTTPRoutes[key(name)] = toXBackend(name, "pods")
			st.Revisions["HTTPRoute"]++
		}},
		{"a pod comes", "Pod", func(st *source.State) {
			st.Pods[key("x-1")] = pod("x-1", "10.0.0.7", true, map[string]string{"app": "x"})
		}},
		{"a second pod comes", "Pod", func(st *source.State) {
			st.Pods[key("x-2")] = pod("x-2", "10.0.0.8", true, map[string]string{"app": "x"})
		}},
		{"the first is not ready", "Pod", func(st *source.State) {
			st.Pods[key("x-1")] = pod("x-1", "10.0.0.7", false, map[string]string{"app": "x"})
		}},
		{"spans go nowhere", "XTelemetryPolicy", func(st *source.State) {
			st.XTelemetryPolicies[key("traces")] = &gatewayxv1alpha1.XTelemetryPolicy{ObjectMeta: meta("traces"),
				Spec: gatewayxv1alpha1.TelemetryPolicySpec{
					TargetRefs: []gatewayv1.LocalObjectReference{{Group: gatewayv1.GroupName, Kind: "Gateway", Name: "edge"}},
					Tracing: gatewayxv1alpha1.TracingConfig{Mode: gatewayxv1alpha1.TracingModeEnabled, Provider: gatewayxv1alpha1.TracingProvider{
						BackendRef: gatewayv1.BackendObjectReference{Name: "otel", Port: ref(gatewayv1.PortNumber(4318))}}},
				}}
		}},
		{"the collector comes", "Service", func(st *source.State) {
			st.Services[key("otel")] = &corev1.Service{ObjectMeta: meta("otel"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 4318}}}}
		}},
		{"the policy goes", "XTelemetryPolicy", func(st *source.State) { clear(st.XTelemetryPolicies) }},
		{"clients are asked for certificates of a CA that is not there", "Gateway", changeGateway(func(g *gatewayv1.Gateway) {
			g.Spec.TLS = &gatewayv1.GatewayTLSConfig{Frontend: &gatewayv1.FrontendTLSConfig{Default: gatewayv1.TLSConfig{
				Validation: &gatewayv1.FrontendTLSValidation{CACertificateRefs: []gatewayv1.ObjectReference{{Kind: "ConfigMap", Name: "clients"}}}}}}
			g.Spec.Listeners[1].Protocol = gatewayv1.HTTPSProtocolType
			g.Spec.Listeners[1].TLS = &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "client"}}}
		})},
		{"that CA comes", "ConfigMap", func(st *source.State) { st.ConfigMaps[key("clients")] = caMap("clients", cert) }},
		{"that CA changes", "ConfigMap", func(st *source.State) { st.ConfigMaps[key("clients")] = caMap("clients", renewed) }},
		{"parameters that are not there", "Gateway", changeGateway(func(g *gatewayv1.Gateway) {
			g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Group: "gatehouse.dev",
				Kind: "GatewayParameters", Name: "p"}}
		})},
		{"the parameters come", "GatewayParameters", func(st *source.State) {
			st.GatewayParameters[key("p")] = &v1alpha1.GatewayParameters{ObjectMeta: meta("p"),
				Spec: v1alpha1.GatewayParametersSpec{Replicas: ref(int32(3))}}
		}},
	}
	st := world(4)
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
		checkSamePlan(t, got, tr.Translate(st))
		before = got
	}
}

// TestPolicyPointers checks that a policy changes the identity of its own clusters, and of nothing else.
func TestPolicyPointers(t *testing.T) {
	cert, private := keyPair(t)
	renewed, renewedKey := keyPair(t)
	base := world(5)
	base.ConfigMaps[key("ca")] = caMap("ca", cert)
	base.Secrets[key("client")] = tlsSecret("shop", "client", cert, private)
	base.BackendTLSPolicies[key("tls")] = backendPolicy("tls", "app-0001", "ca")
	changeGateway(presenting("shop", "client"))(base)
	cases := map[string]struct {
		kind   string
		change func(*source.State)
		want   []string
	}{
		"nothing": {"BackendTLSPolicy", func(*source.State) {}, nil},
		"the CA":  {"ConfigMap", func(st *source.State) { st.ConfigMaps[key("ca")] = caMap("ca", renewed) }, []string{"cluster app-0001"}},
		"another ConfigMap": {"ConfigMap", func(st *source.State) {
			st.ConfigMaps[key("else")] = caMap("else", renewed)
		}, nil},
		"the CA, written in another way": {"ConfigMap", func(st *source.State) { st.ConfigMaps[key("ca")] = caMap("ca", "# ours\n"+cert) }, nil},
		"a policy for another Service": {"BackendTLSPolicy", func(st *source.State) {
			st.BackendTLSPolicies[key("two")] = backendPolicy("two", "app-0002", "ca")
		}, []string{"cluster app-0002", "listener shop/edge/http", "route app-0002"}},
		"a policy's status": {"BackendTLSPolicy", func(st *source.State) {
			obj := st.BackendTLSPolicies[key("tls")].DeepCopy()
			obj.Status.Ancestors = []gatewayv1.PolicyAncestorStatus{{ControllerName: "x"}}
			st.BackendTLSPolicies[key("tls")] = obj
		}, nil},
		"the client certificate": {"Secret", func(st *source.State) {
			st.Secrets[key("client")] = tlsSecret("shop", "client", renewed, renewedKey)
		}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tr := translator(t)
			before := pointers(tr.Translate(base))
			after := pointers(tr.Translate(edit(base, tc.kind, tc.change)))
			var got []string
			for name := range after {
				if before[name] != after[name] {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("other pointers (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRenewedSecret: a renewed certificate is in the next plan, under the same name, and the clusters that present it stay the same.
func TestRenewedSecret(t *testing.T) {
	cert, private := keyPair(t)
	renewed, renewedKey := keyPair(t)
	st := world(1)
	st.ConfigMaps[key("ca")] = caMap("ca", cert)
	st.Secrets[key("client")] = tlsSecret("shop", "client", cert, private)
	st.BackendTLSPolicies[key("tls")] = backendPolicy("tls", "app-0000", "ca")
	changeGateway(presenting("shop", "client"))(st)
	tr := translator(t)
	first := tr.Translate(st).Config
	second := tr.Translate(edit(st, "Secret", func(st *source.State) {
		st.Secrets[key("client")] = tlsSecret("shop", "client", renewed, renewedKey)
	})).Config
	if len(first.Certificates) != 1 || len(second.Certificates) != 1 {
		t.Fatalf("%d and %d certificates", len(first.Certificates), len(second.Certificates))
	}
	a, b := first.Certificates[0], second.Certificates[0]
	if a.Name != b.Name || a.Chain != cert || b.Chain != renewed || string(b.Key) != renewedKey {
		t.Errorf("%s became %s", a.Name, b.Name)
	}
	if first.Clusters[0] != second.Clusters[0] || first.Clusters[0].TLS.ClientCertificate != a.Name {
		t.Error("the cluster is another one")
	}
}

// TestRevokedGrants: without a grant a Secret of another namespace is in no plan, and with it no longer than it stands.
func TestRevokedGrants(t *testing.T) {
	cert, private := keyPair(t)
	far := types.NamespacedName{Namespace: "far", Name: "client"}
	cases := map[string]struct {
		from string
		use  func(*source.State)
		// closed is whether the backend is closed without the grant.
		closed bool
	}{
		"a Gateway's client certificate": {"Gateway", func(st *source.State) {
			st.BackendTLSPolicies[key("tls")] = backendPolicy("tls", "app-0000", "ca")
			changeGateway(presenting("far", "client"))(st)
		}, false},
		"an XBackend's client certificate": {"XBackend", func(st *source.State) {
			system := gatewayv1.WellKnownCACertificatesSystem
			st.XBackends[key("ext")] = &gatewayxv1alpha1.XBackend{ObjectMeta: meta("ext"), Spec: gatewayxv1alpha1.BackendSpec{
				Type: gatewayxv1alpha1.BackendTypeExternalHostname, Port: gatewayxv1alpha1.BackendPort{Number: 443},
				ExternalHostname: &gatewayxv1alpha1.ExternalHostnameBackend{Hostname: "api.example.com"},
				TLS: &gatewayxv1alpha1.BackendTLS{Mode: gatewayxv1alpha1.BackendTLSModeClientAndServer,
					ClientCertificateRef: &gatewayv1.SecretObjectReference{Name: "client", Namespace: ref(gatewayv1.Namespace("far"))},
					Validation:           &gatewayv1.BackendTLSPolicyValidation{Hostname: "api.example.com", WellKnownCACertificates: &system}},
			}}
			st.HTTPRoutes[key("app-0000")] = toXBackend("app-0000", "ext")
		}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			st := world(1)
			st.ConfigMaps[key("ca")] = caMap("ca", cert)
			st.Secrets[far] = tlsSecret("far", "client", cert, private)
			tc.use(st)
			tr := translator(t)
			check := func(when string, p *plan.Plan, granted bool) {
				t.Helper()
				wanted := slices.ContainsFunc(p.Wants, func(o config.Origin) bool { return o.Kind == "Secret" && o.Namespace == "far" })
				if got := len(p.Config.Certificates) == 1; got != granted || wanted != granted {
					t.Errorf("%s: the certificate is in the plan: %t, wanted: %t; want %t", when, got, wanted, granted)
				}
				closed := p.Config.Listeners[0].Routes[0].Rules[0].Backends[0].Invalid != ""
				if closed != (tc.closed && !granted) {
					t.Errorf("%s: the backend is closed: %t", when, closed)
				}
				if err := p.Config.Validate(); err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			check("at first", tr.Translate(st), false)
			st = edit(st, "ReferenceGrant", func(st *source.State) {
				grant := grantSecrets(tc.from)
				if tc.from == "XBackend" {
					grant.Spec.From[0].Group = experimentalGroup
				}
				st.ReferenceGrants[types.NamespacedName{Namespace: "far", Name: "g"}] = grant
			})
			check("granted", tr.Translate(st), true)
			st = edit(st, "ReferenceGrant", func(st *source.State) { clear(st.ReferenceGrants) })
			check("revoked", tr.Translate(st), false)
		})
	}
}

// TestWantedByNoRoute: what the backend of a Gateway's tracing needs is wanted although it cannot be used yet; otherwise nobody would ever
// fetch it.
func TestWantedByNoRoute(t *testing.T) {
	cert, _ := keyPair(t)
	st := world(0)
	ext := selecting(nil)
	ext.Name, ext.Spec.Type, ext.Spec.EndpointSelector = "otel", gatewayxv1alpha1.BackendTypeExternalHostname, nil
	ext.Spec.ExternalHostname = &gatewayxv1alpha1.ExternalHostnameBackend{Hostname: "otel.example.com"}
	ext.Spec.TLS = &gatewayxv1alpha1.BackendTLS{Mode: gatewayxv1alpha1.BackendTLSModeServerOnly, Validation: &gatewayv1.BackendTLSPolicyValidation{
		Hostname: "otel.example.com", CACertificateRefs: []gatewayv1.LocalObjectReference{{Kind: "ConfigMap", Name: "ca"}}}}
	st.XBackends[key("otel")] = ext
	st.XTelemetryPolicies[key("traces")] = &gatewayxv1alpha1.XTelemetryPolicy{ObjectMeta: meta("traces"),
		Spec: gatewayxv1alpha1.TelemetryPolicySpec{
			TargetRefs: []gatewayv1.LocalObjectReference{{Group: gatewayv1.GroupName, Kind: "Gateway", Name: "edge"}},
			Tracing: gatewayxv1alpha1.TracingConfig{Mode: gatewayxv1alpha1.TracingModeEnabled, Provider: gatewayxv1alpha1.TracingProvider{
				BackendRef: gatewayv1.BackendObjectReference{Group: ref(gatewayv1.Group(experimentalGroup)), Kind: ref(gatewayv1.Kind("XBackend")),
					Name: "otel"}}},
		}}
	tr := translator(t)
	for _, when := range []string{"without the CA", "with it"} {
		p := tr.Translate(st)
		if len(p.Wants) != 1 || p.Wants[0].String() != "ConfigMap/shop/ca" {
			t.Errorf("%s: wants %v", when, p.Wants)
		}
		tracing := p.Config.Listeners[0].Tracing
		if there := when == "with it"; tracing == nil || tracing.Disabled == there || (tracing.Cluster != "") != there {
			t.Errorf("%s: traced by %+v", when, tracing)
		}
		status := slices.ContainsFunc(p.Outcomes, func(o plan.Outcome) bool { return o.Object.Kind == "XBackend" && o.Parent.Name == "edge" })
		if !status {
			t.Errorf("%s: the XBackend has no status under the Gateway", when)
		}
		st = edit(st, "ConfigMap", func(st *source.State) { st.ConfigMaps[key("ca")] = caMap("ca", cert) })
	}
}

// TestCAsHoldNoKeys: what somebody keeps beside the CA certificates does not leave its object.
func TestCAsHoldNoKeys(t *testing.T) {
	cert, private := keyPair(t)
	for name, text := range map[string]string{"key before": private + cert, "key behind": cert + private, "words": "secret words\n" + cert + "more\n"} {
		got, err := certificatesOnly(text)
		if err != nil || got != cert {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{"nothing": "", "no certificate": private, "not one": strings.Replace(cert, "MII", "AAA", 1)} {
		if got, err := certificatesOnly(text); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestSelectedPods: of the Pods that an XBackend selects the ready ones get requests, or those that still serve while they terminate.
func TestSelectedPods(t *testing.T) {
	x := map[string]string{"app": "x", "extra": "y"}
	ready, unready := pod("a", "10.0.0.1", true, x), pod("b", "10.0.0.2", false, x)
	leaving := pod("c", "10.0.0.3", true, x)
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	done := pod("d", "10.0.0.4", true, x)
	done.Status.Phase = corev1.PodSucceeded
	loopback, elsewhere := pod("e", "127.0.0.1", true, x), pod("f", "10.0.0.6", true, map[string]string{"app": "z"})
	second := pod("g", "10.0.0.0", true, x)
	foreign := pod("h", "10.0.0.9", true, x)
	foreign.Namespace = "far"
	cases := map[string]struct {
		pods     []*corev1.Pod
		want     string
		problems int
	}{
		"none":                  {nil, "[]", 0},
		"ready, sorted":         {[]*corev1.Pod{ready, unready, leaving, done, elsewhere, second, foreign}, "[10.0.0.0:8080 10.0.0.1:8080]", 0},
		"only those that leave": {[]*corev1.Pod{unready, leaving}, "[10.0.0.3:8080]", 0},
		"without an address":    {[]*corev1.Pod{pod("i", "", true, x)}, "[]", 0},
		"into the gateway":      {[]*corev1.Pod{loopback, ready}, "[10.0.0.1:8080]", 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			st := world(1)
			st.XBackends[key("pods")] = selecting(map[string]string{"app": "x"})
			st.HTTPRoutes[key("app-0000")] = toXBackend("app-0000", "pods")
			for _, p := range tc.pods {
				st.Pods[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p
			}
			got := translator(t).Translate(st)
			if len(got.Config.Clusters) != 1 || fmt.Sprint(got.Config.Clusters[0].Endpoints) != tc.want || len(got.Problems) != tc.problems {
				t.Errorf("got %+v, %v; want %s", got.Config.Clusters, got.Problems, tc.want)
			}
		})
	}
	st := world(1)
	st.XBackends[key("pods")] = selecting(nil)
	st.HTTPRoutes[key("app-0000")] = toXBackend("app-0000", "pods")
	if got := translator(t).Translate(st).Config; len(got.Clusters) != 0 {
		t.Errorf("an empty selector selects %v", got.Clusters[0].Endpoints)
	}
}

// TestSessionKeys: the same object gives the same key in every process, another one another key, and without UIDs the seed decides.
func TestSessionKeys(t *testing.T) {
	with := func(seed string) *Translator { return New(Options{Filters: testFilters(t), Seed: []byte(seed)}) }
	a := sessionOwner{kind: "HTTPRoute", namespace: "n", name: "r", rule: "0", uid: "uid-1"}
	reborn, other, folder := a, a, a
	reborn.uid, other.rule, folder.uid = "uid-2", "1", ""
	one, two := with("one"), with("two")
	same := func(x, y config.Secret) bool { return bytes.Equal(x, y) }
	if !same(one.sessionKey(a), two.sessionKey(a)) {
		t.Error("two processes have different keys for one object")
	}
	if same(one.sessionKey(a), one.sessionKey(reborn)) || same(one.sessionKey(a), one.sessionKey(other)) {
		t.Error("two objects share a key")
	}
	if same(one.sessionKey(folder), two.sessionKey(folder)) || !same(one.sessionKey(folder), with("one").sessionKey(folder)) {
		t.Error("without a UID the seed does not decide")
	}
	if same(translator(t).sessionKey(folder), translator(t).sessionKey(folder)) {
		t.Error("without a seed the key can be guessed")
	}
}
