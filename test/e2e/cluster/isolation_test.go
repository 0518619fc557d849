package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// twins are two Gateways whose names cannot be told apart once namespace and name are put together with a dash.
var twins = []struct{ namespace, name string }{{"a", "b-c"}, {"a-b", "c"}}

const twinManifest = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: NAME}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: tls}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [{name: NAME}]
  rules:
  - backendRefs: [{name: echo, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: own-NAME}
spec:
  parentRefs: [{name: NAME}]
  hostnames: ["only-NAMESPACE.test"]
  rules:
  - backendRefs: [{name: echo, port: 80}]
`

// crossings are references from one namespace into the other, which nobody granted.
const crossings = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: to-service, namespace: NAMESPACE}
spec:
  parentRefs: [{name: NAME}]
  hostnames: ["to-service.test"]
  rules:
  - backendRefs: [{name: echo, namespace: OTHER, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: to-gateway, namespace: NAMESPACE}
spec:
  parentRefs: [{name: TWIN, namespace: OTHER}]
  hostnames: ["to-gateway.test"]
  rules:
  - backendRefs: [{name: echo, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: to-secret, namespace: NAMESPACE}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: tls, namespace: OTHER}]}}
  - {name: http, port: 80, protocol: HTTP}
`

// testIsolation: each of the twins serves what is of its namespace, and references to the other one are refused in the condition for it.
func testIsolation(t *testing.T, l *lab) {
	began := time.Now()
	for _, twin := range twins {
		l.backend(t, twin.namespace, "echo")
		secret, _ := tlsSecret(t, "tls", twin.namespace+".certificate")
		l.apply(t, twin.namespace, secret)
		l.apply(t, twin.namespace, strings.NewReplacer("NAMESPACE", twin.namespace, "NAME", twin.name).Replace(twinManifest))
	}
	visitors := make([]*visitor, len(twins))
	for i, twin := range twins {
		visitors[i] = visit(l.programmed(t, twin.namespace, twin.name), true)
	}
	t.Logf("two Gateways were programmed after %.1fs", time.Since(began).Seconds())
	for i, twin := range twins {
		other := twins[1-i]
		l.apply(t, "", strings.NewReplacer("NAMESPACE", twin.namespace, "NAME", twin.name, "OTHER", other.namespace, "TWIN", other.name).Replace(crossings))
	}
	for i, twin := range twins {
		other := twins[1-i]
		l.says(t, gatewayV1, "HTTPRoute", twin.namespace, "to-service",
			want{"parent " + twin.name, "ResolvedRefs", "False", "RefNotPermitted"}, want{"parent " + twin.name, "Accepted", "True", "Accepted"})
		l.says(t, gatewayV1, "HTTPRoute", twin.namespace, "to-gateway", want{"parent " + other.name, "Accepted", "False", "NotAllowedByListeners"})
		l.says(t, gatewayV1, "Gateway", twin.namespace, "to-secret",
			want{"listener https", "ResolvedRefs", "False", "RefNotPermitted"}, want{"listener https", "Programmed", "False", "Invalid"},
			want{"listener http", "Programmed", "True", "Programmed"})

		v := visitors[i]
		if _, body := v.answers(t, "http://any.test/x", http.StatusOK); !strings.HasPrefix(body, twin.namespace+"/echo-") {
			t.Errorf("%s/%s leads to %q", twin.namespace, twin.name, body)
		}
		v.answers(t, "http://to-service.test/", http.StatusInternalServerError)
		v.answers(t, "http://only-"+twin.namespace+".test/", http.StatusOK)
		// The other's hostnames mean nothing here: the route for all takes them, to the own backend.
		for _, host := range []string{"only-" + other.namespace + ".test", "to-gateway.test"} {
			if _, body := v.answers(t, "http://"+host+"/", http.StatusOK); !strings.HasPrefix(body, twin.namespace+"/echo-") {
				t.Errorf("%s at %s/%s leads to %q", host, twin.namespace, twin.name, body)
			}
		}
		for _, name := range []string{"a.certificate", "a-b.certificate"} {
			if got, err := v.certificate(t.Context(), name); err != nil || got != twin.namespace+".certificate" {
				t.Errorf("%s/%s presents the certificate of %q for %s: %v", twin.namespace, twin.name, got, name, err)
			}
		}
		shut := visit(l.programmed(t, twin.namespace, "to-secret"), false)
		if got, err := shut.certificate(t.Context(), "a.certificate"); err == nil {
			t.Errorf("%s/to-secret presents the certificate of %q", twin.namespace, got)
		}
	}
	for _, twin := range twins {
		l.remove(t, gatewayV1, "Gateway", twin.namespace, "to-secret")
	}
}

const grantingManifest = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: asking}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: asking}
spec:
  parentRefs: [{name: web}]
  rules:
  - backendRefs: [{name: echo, namespace: granting, port: 80}]
`

const grant = `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: asking, namespace: granting}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: asking}]
  to: [{group: "", kind: Service, name: echo}]
`

// revocation is how long a revoked grant may still serve: the promise is a second, of which a machine that is busy with other things gets more.
const revocation = 5 * time.Second

// testRevokedGrant: what a grant allowed ends with the grant, on connections that are open as well as on new ones.
func testRevokedGrant(t *testing.T, l *lab) {
	l.backend(t, "granting", "echo")
	l.apply(t, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: asking}")
	l.apply(t, "", grantingManifest)
	v := visit(l.programmed(t, "asking", "web"), true)
	for range 3 {
		l.apply(t, "", grant)
		v.answers(t, "http://asking.test/", http.StatusOK)
		l.says(t, gatewayV1, "HTTPRoute", "asking", "web", want{"parent web", "ResolvedRefs", "True", "ResolvedRefs"})
		began := time.Now()
		l.remove(t, gatewayV1, "ReferenceGrant", "granting", "asking")
		deleted := time.Since(began)
		served := 0
		until(t, func(ctx context.Context) error {
			status, body, err := v.get(ctx, "http://asking.test/")
			if err != nil || status == http.StatusInternalServerError {
				return err
			}
			served++
			return fmt.Errorf("still %d %s", status, body)
		})
		took := time.Since(began)
		t.Logf("the traffic stopped %s after the delete was asked for and %s after its answer; %d more were served",
			took.Round(time.Millisecond), (took - deleted).Round(time.Millisecond), served)
		if took > revocation {
			t.Errorf("a revoked grant served for %s", took)
		}
		for i := range 20 {
			v := v
			if i%2 == 1 {
				v = visit(v.address, false)
			}
			if status, body, err := v.get(t.Context(), "http://asking.test/"); err != nil || status != http.StatusInternalServerError {
				t.Errorf("after it had stopped: %d %q %v", status, body, err)
			}
		}
		l.says(t, gatewayV1, "HTTPRoute", "asking", "web", want{"parent web", "ResolvedRefs", "False", "RefNotPermitted"})
	}
}
