package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

const foreignManifest = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: NAME}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [{name: NAME}]
  rules:
  - backendRefs: [{name: echo, port: 80}]
`

// testNames: the longest name there can be works, conditions of others stay, and of a Gateway that is deleted nothing is left.
func testNames(t *testing.T, l *lab) {
	const namespace = "names"
	l.backend(t, namespace, "echo")
	name := strings.Repeat("long.", 50) + "end" // 253 characters
	if len(name) != 253 {
		t.Fatalf("%d characters", len(name))
	}
	l.apply(t, namespace, strings.ReplaceAll(foreignManifest, "NAME", name))
	v := visit(l.programmed(t, namespace, name), true)
	if _, body := v.answers(t, "http://long.test/", http.StatusOK); !strings.HasPrefix(body, "names/echo-") {
		t.Errorf("got %q", body)
	}
	l.foreign(t, namespace, name)
	owned := l.owned(t, namespace)
	for _, kind := range []string{"Deployment", "Service", "ServiceAccount", "ConfigMap"} {
		if !strings.Contains(strings.Join(owned, " "), kind+"/gatehouse-") {
			t.Errorf("no %s among %q", kind, owned)
		}
	}
	l.remove(t, gatewayV1, "Gateway", namespace, name)
	took := until(t, func(context.Context) error {
		if left := l.owned(t, namespace); len(left) > 0 {
			return fmt.Errorf("left of a Gateway that is deleted: %q", left)
		}
		return nil
	})
	t.Logf("%d objects were gone %.1fs after their Gateway: %q", len(owned), took.Seconds(), owned)
	for _, o := range []string{"Service", "Deployment"} {
		version := map[string]string{"Service": "v1", "Deployment": "apps/v1"}[o]
		if _, err := l.objects(version, o, namespace).Get(t.Context(), "echo", metav1.GetOptions{}); err != nil {
			t.Errorf("what is not the Gateway's: %v", err)
		}
	}
}

// owned lists the objects in a namespace that a Gateway owns or that say that they are a Gateway's.
func (l *lab) owned(t *testing.T, namespace string) []string {
	t.Helper()
	var out []string
	for _, kind := range [][2]string{
		{"apps/v1", "Deployment"}, {"v1", "Service"}, {"v1", "ServiceAccount"}, {"v1", "ConfigMap"}, {"policy/v1", "PodDisruptionBudget"}, {"v1", "Pod"},
	} {
		list, err := l.objects(kind[0], kind[1], namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if _, ours := o.GetLabels()["gateway.networking.k8s.io/gateway-name"]; ours || len(o.GetOwnerReferences()) > 0 && o.GetOwnerReferences()[0].Kind == "Gateway" {
				out = append(out, kind[1]+"/"+o.GetName())
			}
		}
	}
	return out
}

// foreign has another controller write into statuses, changes the objects, and looks whether what it wrote is still there when ours has answered.
func (l *lab) foreign(t *testing.T, namespace, name string) {
	t.Helper()
	gateways, routes := l.objects(gatewayV1, "Gateway", namespace), l.objects(gatewayV1, "HTTPRoute", namespace)
	const theirs = `{"type":"example.com/Audited","status":"True","reason":"Audited","message":"by another","lastTransitionTime":"2025-01-01T00:00:00Z"}`
	retry := func(change func(context.Context) error) {
		t.Helper()
		until(t, func(ctx context.Context) error {
			err := change(ctx)
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
				t.Fatal(err)
			}
			return err
		})
	}
	// A JSON patch adds to lists without touching what is in them.
	retry(func(ctx context.Context) error {
		_, err := gateways.Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"add","path":"/status/conditions/-","value":`+theirs+`}]`),
			metav1.PatchOptions{}, "status")
		return err
	})
	retry(func(ctx context.Context) error {
		_, err := routes.Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"add","path":"/status/parents/-","value":`+
			`{"parentRef":{"name":"`+name+`"},"controllerName":"example.com/other","conditions":[`+theirs+`]}}]`), metav1.PatchOptions{}, "status")
		return err
	})
	changed := strings.ReplaceAll(foreignManifest, "NAME", name)
	changed = strings.Replace(changed, "  - {name: http, port: 80, protocol: HTTP}", "  - {name: http, port: 80, protocol: HTTP}\n  - {name: more, port: 81, protocol: HTTP}", 1)
	changed = strings.Replace(changed, "  rules:", "  hostnames: [long.test]\n  rules:", 1)
	l.apply(t, namespace, changed)
	l.says(t, gatewayV1, "Gateway", namespace, name, want{"", "Programmed", "True", "Programmed"}, want{"listener more", "Programmed", "True", "Programmed"})
	l.says(t, gatewayV1, "HTTPRoute", namespace, name, want{"parent " + name, "Accepted", "True", "Accepted"})
	for kind, objects := range map[string]interface {
		Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error)
	}{"Gateway": gateways, "HTTPRoute": routes} {
		o, err := objects.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		kept := false
		for _, c := range conditions(o) {
			kept = kept || c.kind == "example.com/Audited" && c.reason == "Audited" && c.message == "by another"
		}
		if !kept {
			t.Errorf("the condition of another controller is gone from the %s: %+v", kind, conditions(o))
		}
	}
}
