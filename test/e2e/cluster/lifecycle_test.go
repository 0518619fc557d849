package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const movingManifest = `
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: moving}
spec: {replicas: 1, drainSeconds: 5}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: moving}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: web}]
  rules:
  - backendRefs: [{name: echo, port: 80}]
`

// moving makes a Gateway in a namespace of its own and returns its address.
func (l *lab) moving(t *testing.T, namespace string) *visitor {
	t.Helper()
	l.backend(t, namespace, "echo")
	l.apply(t, namespace, movingManifest)
	v := visit(l.programmed(t, namespace, "web"), true)
	v.answers(t, "http://moving.test/", http.StatusOK)
	return v
}

// streams are requests over connections that are used again, and requests that have one each.
func (v *visitor) streams(t *testing.T) map[string]*stream {
	return map[string]*stream{
		"kept connections": visit(v.address, true).send(t, "http://moving.test/", 5*time.Millisecond),
		"new connections":  visit(v.address, false).send(t, "http://moving.test/", 10*time.Millisecond),
	}
}

// rolledOut waits until a Deployment of proxies has taken over its newest specification with so many Pods, and the Pods before have ended.
func (l *lab) rolledOut(t *testing.T, namespace string, generationAfter int64, replicas int32) time.Duration {
	t.Helper()
	return until(t, func(ctx context.Context) error {
		d, err := l.kube.AppsV1().Deployments(namespace).Get(ctx, "gatehouse-web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := l.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		s := d.Status
		if d.Generation <= generationAfter || s.ObservedGeneration != d.Generation || s.UpdatedReplicas != replicas || s.ReadyReplicas != replicas ||
			s.Replicas != replicas || len(pods.Items) != int(replicas) {
			return fmt.Errorf("Deployment of generation %d (more than %d wanted), %d Pods, %d wanted: %+v", d.Generation, generationAfter,
				len(pods.Items), replicas, s)
		}
		return nil
	})
}

// testRollout: proxies that come and go, and proxies that are replaced, cost no request.
func testRollout(t *testing.T, l *lab) {
	v := l.moving(t, "rollout")
	streams := v.streams(t)
	for _, step := range []struct {
		what, spec string
		replicas   int32
	}{
		{"1 to 2 replicas", "{replicas: 2, drainSeconds: 5}", 2},
		{"another Pod template", "{replicas: 2, drainSeconds: 4}", 2},
		{"2 to 1 replicas", "{replicas: 1, drainSeconds: 4}", 1},
	} {
		before, err := l.kube.AppsV1().Deployments("rollout").Get(t.Context(), "gatehouse-web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l.apply(t, "rollout", "apiVersion: gatehouse.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {name: moving}\nspec: "+step.spec)
		t.Logf("%s: %.1fs", step.what, l.rolledOut(t, "rollout", before.Generation, step.replicas).Seconds())
	}
	flawless(t, streams)
	l.remove(t, gatewayV1, "Gateway", "rollout", "web")
}

// leader returns the name of the controller's Pod that holds the Lease.
func (l *lab) leader(ctx context.Context) (string, error) {
	lease, err := l.kube.CoordinationV1().Leases(system).Get(ctx, "gatehouse-controller", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", errors.New("nobody leads")
	}
	holder := *lease.Spec.HolderIdentity // the Pod's name and a process
	return holder[:strings.LastIndexByte(holder, '-')], nil
}

const pathRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [{name: web}]
  hostnames: ["NAME.test"]
  rules:
  - backendRefs: [{name: echo, port: 80}]
`

// testRestart: the leading controller ends. Traffic goes on; another takes over, and a change that was made meanwhile arrives.
func testRestart(t *testing.T, l *lab) {
	v := l.moving(t, "restart")
	l.apply(t, "restart", `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: web}]
  hostnames: [moving.test]
  rules:
  - backendRefs: [{name: echo, port: 80}]
`)
	v.answers(t, "http://before.test/", http.StatusNotFound)
	began := time.Now()
	l.apply(t, "restart", strings.ReplaceAll(pathRoute, "NAME", "before"))
	v.answers(t, "http://before.test/", http.StatusOK)
	t.Logf("with a leader a change arrives after %s", time.Since(began).Round(time.Millisecond))

	streams := v.streams(t)
	grace := int64(0)
	if took := l.takeOver(t, v, "told to end", metav1.DeleteOptions{}); took > 8*time.Second {
		t.Errorf("a change that was made while the leader ended took %s", took)
	}
	// Without a word the Lease has to run out first.
	if took := l.takeOver(t, v, "killed", metav1.DeleteOptions{GracePeriodSeconds: &grace}); took > 45*time.Second {
		t.Errorf("a change that was made when the leader was killed took %s", took)
	}
	flawless(t, streams)
	l.remove(t, gatewayV1, "Gateway", "restart", "web")
}

// takeOver ends the leading controller and waits until a change made at once arrives by another one, and one made after that. It returns how
// long the first took.
func (l *lab) takeOver(t *testing.T, v *visitor, how string, o metav1.DeleteOptions) time.Duration {
	t.Helper()
	old, err := l.leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	word, _, _ := strings.Cut(how, " ")
	began := time.Now()
	if err := l.kube.CoreV1().Pods(system).Delete(t.Context(), old, o); err != nil {
		t.Fatal(err)
	}
	l.apply(t, "restart", strings.ReplaceAll(pathRoute, "NAME", "meanwhile-"+word))
	leads := until(t, func(ctx context.Context) error {
		now, err := l.leader(ctx)
		if err == nil && now == old {
			err = errors.New(old + " still leads")
		}
		return err
	})
	v.answers(t, "http://meanwhile-"+word+".test/", http.StatusOK)
	arrived := time.Since(began)
	t.Logf("leader %s: another led after %s, a change made at once arrived after %s", how, leads.Round(time.Millisecond),
		arrived.Round(time.Millisecond))
	began = time.Now()
	l.apply(t, "restart", strings.ReplaceAll(pathRoute, "NAME", "after-"+word))
	v.answers(t, "http://after-"+word+".test/", http.StatusOK)
	t.Logf("leader %s: a change made then arrived after %s", how, time.Since(began).Round(time.Millisecond))
	l.says(t, gatewayV1, "HTTPRoute", "restart", "after-"+word, want{"parent web", "Accepted", "True", "Accepted"})
	l.says(t, gatewayV1, "Gateway", "restart", "web", want{"", "Programmed", "True", "Programmed"})
	return arrived
}
