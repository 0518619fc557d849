package source

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/controller/source/schema"
)

// everyKind has, by kind, the least object that an API server takes.
var everyKind = map[string]string{
	"GatewayClass": "apiVersion: gateway.networking.k8s.io/v1\nspec: {controllerName: example.com/c}",
	"Gateway": "apiVersion: gateway.networking.k8s.io/v1\nspec: {gatewayClassName: c, " +
		"listeners: [{name: l, port: 80, protocol: HTTP}]}",
	"ListenerSet": "apiVersion: gateway.networking.k8s.io/v1\nspec: {parentRef: {name: g}, listeners: [{name: l, port: 80, protocol: HTTP}]}",
	"HTTPRoute":   "apiVersion: gateway.networking.k8s.io/v1\nspec: {}",
	"GRPCRoute":   "apiVersion: gateway.networking.k8s.io/v1\nspec: {}",
	"TLSRoute": "apiVersion: gateway.networking.k8s.io/v1alpha2\n" +
		"spec: {hostnames: [a.example], rules: [{backendRefs: [{name: s, port: 443}]}]}",
	"TCPRoute":       "apiVersion: gateway.networking.k8s.io/v1\nspec: {rules: [{backendRefs: [{name: s, port: 80}]}]}",
	"UDPRoute":       "apiVersion: gateway.networking.k8s.io/v1alpha2\nspec: {rules: [{backendRefs: [{name: s, port: 80}]}]}",
	"ReferenceGrant": "apiVersion: gateway.networking.k8s.io/v1beta1\nspec: {from: [{group: '', kind: A, namespace: far}], to: [{group: '', kind: Secret}]}",
	"BackendTLSPolicy": "apiVersion: gateway.networking.k8s.io/v1\nspec: {targetRefs: [{group: '', kind: Service, name: s}], " +
		"validation: {hostname: a.example, wellKnownCACertificates: System}}",
	"XBackend": "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nspec: {type: ExternalHostname, port: {number: 80}, " +
		"externalHostname: {hostname: a.example}}",
	"XBackendTrafficPolicy": "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nspec: {targetRefs: [{group: '', kind: Service, name: s}]}",
	"XTelemetryPolicy": "apiVersion: gateway.networking.x-k8s.io/v1alpha1\n" +
		"spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], tracing: {mode: Disabled}}",
	"GatewayParameters":  "apiVersion: gatehouse.dev/v1alpha1\nspec: {replicas: 2}",
	"Service":            "apiVersion: v1\nspec: {ports: [{port: 80}]}",
	"EndpointSlice":      "apiVersion: discovery.k8s.io/v1\naddressType: IPv4\nendpoints: []",
	"Secret":             "apiVersion: v1",
	"ConfigMap":          "apiVersion: v1",
	"ClusterTrustBundle": "apiVersion: certificates.k8s.io/v1beta1\nspec: {trustBundle: \"ANCHOR\"}",
	"Namespace":          "apiVersion: v1",
}

// TestEveryKindIsRead reads one object of each kind that a State holds from a folder. Pods say nothing there: nobody runs them.
func TestEveryKindIsRead(t *testing.T) {
	validator := schema.New()
	for _, kind := range Kinds() {
		if kind == "Pod" {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			text := strings.ReplaceAll(everyKind[kind], "ANCHOR", strings.ReplaceAll(anchor(t), "\n", `\n`))
			text += "\nkind: " + kind + "\nmetadata: {name: a}\n"
			file := filepath.Join(t.TempDir(), "a.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			st, err := NewFolder([]string{file}, WithValidator(validator)).Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range st.Problems {
				t.Error(p)
			}
			if st.Size(kind) != 1 || st.Revisions[kind] != 1 {
				t.Errorf("%d objects, revision %d; want 1 and 1", st.Size(kind), st.Revisions[kind])
			}
		})
	}
}

// anchor is a certificate in PEM.
func anchor(t *testing.T) string {
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
