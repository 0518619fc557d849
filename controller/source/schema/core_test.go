package schema

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testAnchor is a certificate in PEM.
func testAnchor(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestCore holds the rules for the kinds of Kubernetes. want are the errors; none means that the object is taken.
func TestCore(t *testing.T) {
	const (
		service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: "
		slice   = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\n"
		secret  = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
		config  = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\n"
		bundle  = "apiVersion: certificates.k8s.io/v1beta1\nkind: ClusterTrustBundle\nmetadata: {name: b}\nspec: "
	)
	anchor := testAnchor(t)
	tests := map[string]struct {
		text string
		want []string
	}{
		"service":                  {service + "{ports: [{port: 80}]}", nil},
		"headless without ports":   {service + "{clusterIP: None}", nil},
		"external name":            {service + "{type: ExternalName, externalName: api.example.com}", nil},
		"no ports":                 {service + "{}", []string{"spec.ports: Required value"}},
		"unknown type":             {service + "{type: Foo}", []string{`spec.type: Unsupported value: "Foo": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		"no external name":         {service + "{type: ExternalName}", []string{"spec.externalName: Required value"}},
		"protocol":                 {service + "{ports: [{port: 80, protocol: HTTP}]}", []string{`spec.ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"`}},
		"duplicate port name":      {service + "{ports: [{name: a, port: 80}, {name: a, port: 81}]}", []string{`spec.ports[1].name: Duplicate value: "a"`}},
		"named target":             {service + "{ports: [{port: 80, targetPort: http}]}", nil},
		"bad target":               {service + "{ports: [{port: 80, targetPort: 70000}]}", []string{"spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
		"unknown field":            {service + "{ports: [{port: 80, prot: 1}]}", []string{`spec.ports[0].prot: strict decoding error: unknown field "spec.ports[0].prot"`}},
		"generated name":           {"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}", []string{"metadata.name: Required value: generateName is only for clusters; give the object a name"}},
		"no name":                  {"apiVersion: v1\nkind: ConfigMap", []string{"metadata.name: Required value: name or generateName is required"}},
		"loopback":                 {slice + "addressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]\nports: [{port: 80}]", nil},
		"loopback 6":               {slice + "addressType: IPv6\nendpoints: [{addresses: ['::1']}]", nil},
		"fqdn":                     {slice + "addressType: FQDN\nendpoints: [{addresses: [a.example.com]}]", nil},
		"no address type":          {slice + "endpoints: [{addresses: [10.0.0.1]}]", []string{"addressType: Required value"}},
		"not an address":           {slice + "addressType: IPv4\nendpoints: [{addresses: [a]}]", []string{`endpoints[0].addresses[0]: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`}},
		"link-local":               {slice + "addressType: IPv4\nendpoints: [{addresses: [169.254.169.254]}]", []string{`endpoints[0].addresses[0]: Invalid value: "169.254.169.254": may not be in the link-local range (169.254.0.0/16, fe80::/10)`}},
		"no addresses":             {slice + "addressType: IPv4\nendpoints: [{addresses: []}]", []string{"endpoints[0].addresses: Required value: must contain at least 1 address"}},
		"endpoint port":            {slice + "addressType: IPv4\nendpoints: []\nports: [{port: 0}]", []string{"ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		"two ports without name":   {slice + "addressType: IPv4\nendpoints: []\nports: [{port: 1}, {port: 2}]", []string{`ports[1].name: Duplicate value: ""`}},
		"secret":                   {secret + "stringData: {a: b}", nil},
		"tls secret":               {secret + "type: kubernetes.io/tls\nstringData: {tls.crt: a, tls.key: b}", nil},
		"tls secret without":       {secret + "type: kubernetes.io/tls", []string{"data[tls.crt]: Required value", "data[tls.key]: Required value"}},
		"development secret":       {strings.Replace(secret, "name: s", "name: s, annotations: {gatehouse.dev/development-certificate: a}", 1) + "type: kubernetes.io/tls", nil},
		"half a development one":   {strings.Replace(secret, "name: s", "name: s, annotations: {gatehouse.dev/development-certificate: a}", 1) + "type: kubernetes.io/tls\nstringData: {tls.crt: a}", []string{"data[tls.key]: Required value"}},
		"secret too long":          {secret + "stringData: {a: " + strings.Repeat("x", 1<<20+1) + "}", []string{"data: Too long: may not be more than 1048576 bytes"}},
		"key in data and binary":   {config + "data: {a: b}\nbinaryData: {a: aGk=}", []string{`data[a]: Invalid value: "a": duplicate of key present in binaryData`}},
		"binary data not base64":   {config + "binaryData: {a: '?'}", []string{`binaryData[a]: ConfigMap in version "v1" cannot be handled as a ConfigMap: illegal base64 data at input byte 0`}},
		"namespace":                {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}", nil},
		"trust bundle":             {bundle + "{trustBundle: \"" + strings.ReplaceAll(anchor, "\n", "\\n") + "\"}", nil},
		"trust bundle of a signer": {bundle + "{signerName: a.example/b, trustBundle: \"" + strings.ReplaceAll(anchor, "\n", "\\n") + "\"}", []string{`metadata.name: Invalid value: "b": ClusterTrustBundle for signerName a.example/b must be named with prefix a.example:b:`}},
		"empty trust bundle":       {bundle + "{trustBundle: x}", []string{`spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided`}},
		"key in a trust bundle":    {bundle + "{trustBundle: \"-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----\"}", []string{`spec.trustBundle: Invalid value: "<value omitted>": entry 0 has bad block type: PRIVATE KEY`}},
		"namespace in a namespace": {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}", []string{"metadata.namespace: Forbidden: not allowed on this type"}},
	}
	v := New()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			raw := toJSON(t, test.text)
			object, errs := v.Validate(t.Context(), ParseHeader(raw), raw)
			var got []string
			for _, e := range errs {
				got = append(got, e.Error())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if (object == nil) != (len(test.want) > 0) {
				t.Errorf("object %v beside errors %v", object, got)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	tests := map[string]struct {
		apiVersion, kind string
		want             Support
		wantReason       string
	}{
		"served":          {"gateway.networking.k8s.io/v1", "HTTPRoute", Served, ""},
		"older version":   {"gateway.networking.k8s.io/v1beta1", "Gateway", Served, ""},
		"x-channel":       {"gateway.networking.x-k8s.io/v1alpha1", "XBackend", Served, ""},
		"core":            {"v1", "Service", Served, ""},
		"deployment":      {"apps/v1", "Deployment", Ignored, ""},
		"pod":             {"v1", "Pod", Ignored, ""},
		"misspelt":        {"apps/v1", "Deploymnet", Unknown, "keep it out of the folder"},
		"case":            {"v1", "service", Unknown, "did you mean kind Service of v1?"},
		"group":           {"v1", "Gateway", Unknown, "did you mean kind Gateway of gateway.networking.k8s.io/v1?"},
		"version":         {"gateway.networking.k8s.io/v1alpha2", "HTTPRoute", Unknown, "the versions of this kind are v1, v1beta1"},
		"ingress":         {"networking.k8s.io/v1", "Ingress", Unknown, "use HTTPRoute"},
		"endpoints":       {"v1", "Endpoints", Unknown, "use EndpointSlice"},
		"grpc":            {"gateway.networking.k8s.io/v1", "GRPCRoute", Served, ""},
		"an alpha of TCP": {"gateway.networking.k8s.io/v1alpha2", "TCPRoute", Served, ""},
		"parameters":      {"gatehouse.dev/v1alpha1", "GatewayParameters", Served, ""},
		"trust bundle":    {"certificates.k8s.io/v1beta1", "ClusterTrustBundle", Served, ""},
		"mesh":            {"gateway.networking.x-k8s.io/v1alpha1", "XMesh", Unserved, "not served by this version"},
		"another gateway": {"networking.istio.io/v1", "Gateway", Unknown, "no matches for kind"},
	}
	v := New()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, reason := v.Lookup(Header{APIVersion: test.apiVersion, Kind: test.kind})
			if got != test.want || !strings.Contains(reason, test.wantReason) {
				t.Errorf("got %d, %q; want %d, %q", got, reason, test.want, test.wantReason)
			}
		})
	}
}

// TestDefinitionsCompile compiles every version of every kind, and sees an empty spec through it.
func TestDefinitionsCompile(t *testing.T) {
	v := New()
	for _, d := range definitions() {
		for _, version := range d.servedVersions {
			raw := toJSON(t, "apiVersion: "+d.group+"/"+version+"\nkind: "+d.kind+"\nmetadata: {name: a}\nspec: {}\n")
			_, errs := v.Validate(t.Context(), ParseHeader(raw), raw)
			for _, e := range errs {
				if e.Field == "" || strings.Contains(e.Message, "compil") {
					t.Errorf("%s %s: %v", d.kind, version, e)
				}
			}
		}
	}
}
