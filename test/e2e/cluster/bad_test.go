package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// goodRoutes is how many routes are in order.
const goodRoutes = 1000

// badManifest has one object of each kind that the API server takes and the gateway cannot. The Gateway good is in order, but for a listener.
const badManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: bad}
spec:
  controllerName: gatehouse.dev/controller
  parametersRef: {group: gatehouse.dev, kind: GatewayParameters, namespace: crowd, name: missing}
---
apiVersion: v1
kind: Secret
metadata: {name: garbage}
type: Opaque
stringData: {tls.crt: garbage, tls.key: garbage}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: good}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: garbage, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: garbage}]}}
  - {name: tls, port: 8443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: tcp, port: 9000, protocol: TCP}
  - {name: udp, port: 9001, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bad}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: missing}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: bad}
spec:
  parentRef: {name: good}
  listeners:
  - {name: http, port: 81, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad}
spec:
  parentRefs: [{name: good, sectionName: http}]
  hostnames: [bad.test]
  rules:
  - backendRefs: [{name: missing, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ungranted}
spec:
  parentRefs: [{name: good, sectionName: http}]
  hostnames: [ungranted.test]
  rules:
  - backendRefs: [{name: echo, namespace: elsewhere, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: nothing, namespace: elsewhere}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: nowhere}]
  to: [{group: "", kind: Service}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: bad}
spec:
  parentRefs: [{name: good, sectionName: http}]
  hostnames: [grpc.test]
  rules:
  - backendRefs: [{name: missing, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: bad}
spec:
  parentRefs: [{name: good, sectionName: tls}]
  hostnames: [tls.test]
  rules:
  - backendRefs: [{name: missing, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: bad}
spec:
  parentRefs: [{name: good, sectionName: udp}]
  rules:
  - backendRefs: [{name: echo, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: bad}
spec:
  parentRefs: [{name: good, sectionName: missing}]
  rules:
  - backendRefs: [{name: echo, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: secure}
spec:
  selector: {app: echo}
  ports: [{name: https, port: 443, targetPort: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: bad}
spec:
  targetRefs: [{group: "", kind: Service, name: secure}]
  validation: {hostname: secure.test, caCertificateRefs: [{group: "", kind: ConfigMap, name: missing}]}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: bad}
spec:
  type: ExternalHostname
  port: {number: 443}
  externalHostname: {hostname: api.example.com}
  tls:
    mode: ServerOnly
    validation: {hostname: api.example.com, caCertificateRefs: [{group: "", kind: ConfigMap, name: missing}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: closed}
spec:
  parentRefs: [{name: good, sectionName: http}]
  hostnames: [closed.test]
  rules:
  - matches: [{path: {value: /policy}}]
    backendRefs: [{name: secure, port: 443}]
  - matches: [{path: {value: /xbackend}}]
    backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: bad}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: bad}
spec:
  targetRefs: [{group: "", kind: Service, name: secure}, {group: "", kind: Service, name: missing}]
  retryConstraint: {}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: bad}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: good}]
  tracing:
    mode: Enabled
    provider: {backendRef: {name: missing, port: 4317}}
`

// complaints are what statuses say of each.
var complaints = []struct {
	version, kind, name string
	want                []want
}{
	{gatewayV1, "GatewayClass", "bad", []want{{"", "Accepted", "False", "InvalidParameters"}}},
	{gatewayV1, "Gateway", "bad", []want{{"", "Accepted", "False", "InvalidParameters"}}},
	{gatewayV1, "Gateway", "good", []want{
		{"", "Accepted", "True", "Accepted"}, {"", "ResolvedRefs", "False", "ListenersNotResolved"}, {"listener garbage", "ResolvedRefs", "False", "InvalidCertificateRef"},
		{"listener garbage", "Programmed", "False", "Invalid"}, {"listener http", "Programmed", "True", "Programmed"},
	}},
	{gatewayV1, "ListenerSet", "bad", []want{{"", "Accepted", "False", "NotAllowed"}}},
	{gatewayV1, "HTTPRoute", "bad", []want{{"parent good", "ResolvedRefs", "False", "BackendNotFound"}}},
	{gatewayV1, "HTTPRoute", "ungranted", []want{{"parent good", "ResolvedRefs", "False", "RefNotPermitted"}}},
	{gatewayV1, "GRPCRoute", "bad", []want{{"parent good", "ResolvedRefs", "False", "BackendNotFound"}}},
	{gatewayV1, "TLSRoute", "bad", []want{{"parent good", "ResolvedRefs", "False", "BackendNotFound"}}},
	{gatewayV1, "TCPRoute", "bad", []want{{"parent good", "Accepted", "False", "NotAllowedByListeners"}}},
	{gatewayV1, "UDPRoute", "bad", []want{{"parent good", "Accepted", "False", "NoMatchingParent"}}},
	{gatewayV1, "BackendTLSPolicy", "bad", []want{
		{"ancestor good", "Accepted", "False", "NoValidCACertificate"}, {"ancestor good", "ResolvedRefs", "False", "InvalidCACertificateRef"},
	}},
	{experimentalGroup + "/v1alpha1", "XBackend", "bad", []want{{"ancestor good", "Accepted", "False", "InvalidCACertificateRef"}}},
	{experimentalGroup + "/v1alpha1", "XBackendTrafficPolicy", "bad", []want{{"ancestor good", "Accepted", "False", "TargetNotFound"}}},
	{experimentalGroup + "/v1alpha1", "XTelemetryPolicy", "bad", []want{{"ancestor good", "ResolvedRefs", "False", "BackendNotFound"}}},
}

// testBad: of many objects the good ones serve, and each bad one says why in its own status.
func testBad(t *testing.T, l *lab) {
	const namespace = "crowd"
	l.backend(t, namespace, "echo")
	l.apply(t, namespace, badManifest)
	began := time.Now()
	l.crowd(t, namespace)
	created := time.Since(began)
	l.says(t, gatewayV1, "Gateway", namespace, "good", want{"listener http", "Programmed", "True", "Programmed"})
	v := visit(l.address(t, namespace, "good"), true)
	for i := range goodRoutes {
		v.answers(t, fmt.Sprintf("http://good-%d.test/", i), http.StatusOK)
	}
	t.Logf("%d routes created in %.1fs, all served after %.1fs", goodRoutes, created.Seconds(), time.Since(began).Seconds())
	until(t, func(ctx context.Context) error { return l.accepted(ctx, namespace) })
	t.Logf("all accepted after %.1fs", time.Since(began).Seconds())
	for _, c := range complaints {
		where := namespace
		if c.kind == "GatewayClass" {
			where = ""
		}
		messages := l.says(t, c.version, c.kind, where, c.name, c.want...)
		for i, w := range c.want {
			if w.status == "False" && messages[i] == "" {
				t.Errorf("%s %s: %s without a message", c.kind, c.name, w.kind)
			}
			if w.status == "False" {
				t.Logf("%s %s: %s %s: %s", c.kind, c.name, w.kind, w.reason, messages[i])
			}
		}
	}
	for url, status := range map[string]int{
		"http://bad.test/": 500, "http://ungranted.test/": 500, "http://closed.test/policy": 500, "http://closed.test/xbackend": 500,
	} {
		v.answers(t, url, status)
	}
}

// crowd creates the good routes.
func (l *lab) crowd(t *testing.T, namespace string) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	routes := l.objects(gatewayV1, "HTTPRoute", namespace)
	for range 8 {
		all.Go(func() {
			for i := next.Add(1) - 1; i < goodRoutes; i = next.Add(1) - 1 {
				name := fmt.Sprintf("good-%d", i)
				o := &unstructured.Unstructured{Object: map[string]any{
					"apiVersion": gatewayV1, "kind": "HTTPRoute", "metadata": map[string]any{"name": name},
					"spec": map[string]any{
						"parentRefs": []any{map[string]any{"name": "good", "sectionName": "http"}},
						"hostnames":  []any{name + ".test"},
						"rules":      []any{map[string]any{"backendRefs": []any{map[string]any{"name": "echo", "port": int64(80)}}}},
					},
				}}
				if _, err := routes.Create(t.Context(), o, metav1.CreateOptions{FieldManager: manager}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// accepted says which of the good routes is not accepted.
func (l *lab) accepted(ctx context.Context, namespace string) error {
	list, err := l.objects(gatewayV1, "HTTPRoute", namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	good := 0
	for i := range list.Items {
		o := &list.Items[i]
		if !strings.HasPrefix(o.GetName(), "good-") {
			continue
		}
		done := 0
		for _, c := range conditions(o) {
			if c.status == "True" && (c.kind == "Accepted" || c.kind == "ResolvedRefs") && c.observedGeneration == o.GetGeneration() {
				done++
			}
		}
		if done == 2 {
			good++
		}
	}
	if good != goodRoutes {
		return fmt.Errorf("%d of %d good routes are accepted", good, goodRoutes)
	}
	return nil
}
