package leader

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"gatehouse.dev/gatehouse/controller/gatewayapi"
	"gatehouse.dev/gatehouse/filters"
)

// kubeconfigVariable names the kubeconfig of a cluster in which these tests may make namespaces. Gateway API's CRDs must be there.
const kubeconfigVariable = "GATEHOUSE_TEST_KUBECONFIG"

// limit is what a test waits for at most.
const limit = time.Minute

// realLab is a Leader on a real API server, with a namespace and a GatewayClass of its own.
type realLab struct {
	*Leader
	core                  coreclient.CoreV1Interface
	dynamic               dynamic.Interface
	namespace, controller string

	mu      sync.Mutex
	paths   []string       // of the Leader's requests for Secrets, with what they select
	results map[string]int // of status writes
}

func newRealLab(t *testing.T) *realLab {
	t.Helper()
	file := os.Getenv(kubeconfigVariable)
	if file == "" {
		t.Skip("set " + kubeconfigVariable + " to the kubeconfig of a cluster with Gateway API's CRDs")
	}
	admin, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	admin.QPS = -1
	l := &realLab{core: coreclient.NewForConfigOrDie(admin), dynamic: dynamic.NewForConfigOrDie(admin), results: map[string]int{}}
	ns, err := l.core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "gatehouse-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.namespace, l.controller = ns.Name, "gatehouse.dev/"+ns.Name
	t.Cleanup(func() {
		_ = l.core.Namespaces().Delete(context.Background(), l.namespace, metav1.DeleteOptions{})
		_ = l.dynamic.Resource(resourceOf("gatewayclasses")).Delete(context.Background(), l.namespace, metav1.DeleteOptions{})
	})
	own := rest.CopyConfig(admin)
	own.Wrap(func(next http.RoundTripper) http.RoundTripper { return &counting{next, l} })
	set, err := filters.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	l.Leader, err = New(Options{
		Config: own, Namespace: l.namespace, ControllerName: l.controller, Image: "none", Listen: "127.0.0.1:0",
		Translator: gatewayapi.New(gatewayapi.Options{Filters: set, ControllerName: l.controller}), Features: gatewayapi.SupportedFeatures(),
		Advertise: netip.MustParseAddr("192.0.2.1"), StatusRate: 1000, Logger: slog.New(slog.DiscardHandler),
		OnWrite: func(_, result string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.results[result]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *realLab) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the leader ended with %v", err)
		}
	})
}

// counting notes requests for Secrets.
type counting struct {
	next http.RoundTripper
	lab  *realLab
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/secrets") {
		c.lab.mu.Lock()
		c.lab.paths = append(c.lab.paths, r.URL.Path+"?"+r.URL.Query().Get("fieldSelector"))
		c.lab.mu.Unlock()
	}
	return c.next.RoundTrip(r)
}

func resourceOf(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: name}
}

// create makes an object of Gateway API in the namespace, or a class.
func (l *realLab) create(t *testing.T, resource, text string) {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "CLASS", l.namespace)), &o.Object); err != nil {
		t.Fatal(err)
	}
	var to dynamic.ResourceInterface = l.dynamic.Resource(resourceOf(resource)).Namespace(l.namespace)
	if resource == "gatewayclasses" {
		to = l.dynamic.Resource(resourceOf(resource))
	}
	if _, err := to.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (l *realLab) patch(t *testing.T, resource, name, patch string, sub ...string) {
	t.Helper()
	_, err := l.dynamic.Resource(resourceOf(resource)).Namespace(l.namespace).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, sub...)
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for an object to be as wanted, by watching it.
func until[T any](t *testing.T, l *realLab, resource, name string, is func(*T) bool) *T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	to := l.dynamic.Resource(resourceOf(resource)).Namespace(l.namespace)
	watching, err := to.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	for {
		raw, err := to.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatalf("%s: %v; waiting for: %v", name, err, l.Ready())
		}
		o := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw.Object, o); err != nil {
			t.Fatal(err)
		}
		if is(o) {
			return o
		}
		if _, ok := <-watching.ResultChan(); !ok {
			text, _ := json.Marshal(raw.Object["status"])
			t.Fatalf("%s %s stays at %s", resource, name, text)
		}
	}
}

// TestRealAPIServer: statuses tell the truth, others' entries stay, only wanted Secrets are read, and nothing is written when nothing changes.
func TestRealAPIServer(t *testing.T) {
	l := newRealLab(t)
	l.create(t, "gatewayclasses", fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: CLASS}, spec: {controllerName: %s}}`, l.controller))
	l.create(t, "gateways", `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: CLASS
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
`)
	for i := range 100 {
		l.create(t, "httproutes", fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r%d}
spec: {parentRefs: [{name: g, sectionName: http}], rules: [{backendRefs: [{name: missing, port: 80}]}]}
`, i))
	}
	if _, err := l.core.Secrets(l.namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "unasked"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.start(t)
	mine := func(parents []gatewayv1.RouteParentStatus) *gatewayv1.RouteParentStatus {
		for i := range parents {
			if string(parents[i].ControllerName) == l.controller {
				return &parents[i]
			}
		}
		return nil
	}
	for i := range 100 {
		until(t, l, "httproutes", fmt.Sprint("r", i), func(r *gatewayv1.HTTPRoute) bool {
			p := mine(r.Status.Parents)
			return p != nil && meta.IsStatusConditionTrue(p.Conditions, "Accepted") && meta.IsStatusConditionFalse(p.Conditions, "ResolvedRefs")
		})
	}
	until(t, l, "gateways", "g", func(g *gatewayv1.Gateway) bool {
		return meta.IsStatusConditionTrue(g.Status.Conditions, "Accepted") && meta.IsStatusConditionFalse(g.Status.Conditions, "Programmed") &&
			len(g.Status.Listeners) == 2 && g.Status.Listeners[0].AttachedRoutes == 100
	})

	// Others write: their entries stay as they are, and ours follow the new generation.
	l.patch(t, "httproutes", "r0", `{"status":{"parents":[{"controllerName":"example.com/other","parentRef":{"name":"x"},
		"conditions":[{"type":"Accepted","status":"True","reason":"Theirs","message":"","lastTransitionTime":"2020-01-01T00:00:00Z"}]}]}}`, "status")
	l.patch(t, "httproutes", "r0", `{"spec":{"hostnames":["a.example"]}}`)
	r := until(t, l, "httproutes", "r0", func(r *gatewayv1.HTTPRoute) bool {
		p := mine(r.Status.Parents)
		return p != nil && p.Conditions[0].ObservedGeneration == r.Generation
	})
	if len(r.Status.Parents) != 2 || r.Status.Parents[0].Conditions[0].Reason != "Theirs" {
		t.Errorf("parents %+v", r.Status.Parents)
	}
	// A route that goes elsewhere loses our entry.
	l.patch(t, "httproutes", "r0", `{"spec":{"parentRefs":[{"name":"another-gateway"}]}}`)
	until(t, l, "httproutes", "r0", func(r *gatewayv1.HTTPRoute) bool { return len(r.Status.Parents) == 1 && mine(r.Status.Parents) == nil })
	until(t, l, "gateways", "g", func(g *gatewayv1.Gateway) bool { return g.Status.Listeners[0].AttachedRoutes == 99 })

	l.mu.Lock()
	defer l.mu.Unlock()
	prefix := "/api/v1/namespaces/" + l.namespace + "/secrets"
	for _, path := range l.paths {
		if path != prefix+"?metadata.name=cert" && path != prefix+"/gatehouse-controller-ca?" && path != prefix+"?" {
			t.Errorf("a request for Secrets that nobody permitted: %s", path)
		}
	}
	// The one without a name creates the CA; 100 routes, the class and the Gateway are written once or twice each.
	if creates := strings.Count(strings.Join(l.paths, "\n"), prefix+"?\n"); creates > 1 {
		t.Errorf("%d requests for all Secrets of the namespace", creates)
	}
	if l.results["failed"] > 0 || l.results["written"] < 104 || l.results["written"] > 115 {
		t.Errorf("writes: %v", l.results)
	}
}
