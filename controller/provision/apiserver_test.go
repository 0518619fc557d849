package provision

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"gatehouse.dev/gatehouse/controller/plan"
)

// kubeconfigVariable names the kubeconfig of a cluster in which these tests may make namespaces. Gateway API's CRDs must be there.
const kubeconfigVariable = "GATEHOUSE_TEST_KUBECONFIG"

// realCluster is a namespace of a real API server.
type realCluster struct {
	admin     kubernetes.Interface
	gateways  dynamic.ResourceInterface
	namespace string
	// asController acts with the rights that deploy/install.yaml gives the controller.
	asController *rest.Config
}

func newRealCluster(t *testing.T) *realCluster {
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
	c := &realCluster{admin: kubernetes.NewForConfigOrDie(admin), asController: rest.CopyConfig(admin)}
	// Pod Security's strictest profile: what it refuses has no Pods.
	namespace, err := c.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "gatehouse-test-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.namespace = namespace.Name
	t.Cleanup(func() {
		if err := c.admin.CoreV1().Namespaces().Delete(context.Background(), c.namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	c.gateways = dynamic.NewForConfigOrDie(admin).Resource(schema.GroupVersionResource{
		Group: gatewayGroup, Version: "v1", Resource: "gateways"}).Namespace(c.namespace)
	c.grant(t)
	return c
}

// grant gives a user of the test's own the rights of the controller.
func (c *realCluster) grant(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var role *rbacv1.ClusterRole
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		if strings.Contains(document, "\nkind: ClusterRole\n") {
			role = &rbacv1.ClusterRole{}
			if err := yaml.Unmarshal([]byte(document), role); err != nil {
				t.Fatal(err)
			}
		}
	}
	if role == nil {
		t.Fatal("deploy/install.yaml has no ClusterRole")
	}
	name := c.namespace
	role.ObjectMeta = metav1.ObjectMeta{Name: name}
	if _, err := c.admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: name}}}
	if _, err := c.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.admin.RbacV1().ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
		_ = c.admin.RbacV1().ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	c.asController.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}
}

// lab runs a Provisioner with the controller's rights, and no more. It has a name of its own: a controller of the same name that runs in the
// cluster would remove what it does not want.
func (c *realCluster) lab(t *testing.T) (l *lab, stop func()) {
	t.Helper()
	as := kubernetes.NewForConfigOrDie(c.asController)
	return startLab(t, clients{core: as.CoreV1(), apps: as.AppsV1(), policy: as.PolicyV1()}, "example.com/"+c.namespace)
}

// gateway makes a Gateway, which the garbage collector looks for, and returns what is wanted for it.
func (c *realCluster) gateway(t *testing.T, g plan.Gateway) plan.Gateway {
	t.Helper()
	made, err := c.gateways.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": gatewayAPIVersion, "kind": gatewayKind,
		"metadata": map[string]any{"name": g.Origin.Name},
		"spec": map[string]any{"gatewayClassName": "gatehouse-test",
			"listeners": []any{map[string]any{"name": "http", "port": int64(80), "protocol": "HTTP"}}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g.Origin.Namespace, g.UID = c.namespace, string(made.GetUID())
	return g
}

// TestAPIServerTakesEveryCase applies the objects of every golden case to a real API server, with the rights of the chart, and looks whether
// what comes back is what was wanted: a difference would be written again and again.
func TestAPIServerTakesEveryCase(t *testing.T) {
	c := newRealCluster(t)
	l, _ := c.lab(t)
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list []plan.Gateway
	for _, input := range inputs {
		g := *readGateway(t, input)
		if g.Origin.Name == "web" {
			g.Origin.Name = strings.TrimSuffix(filepath.Base(input), ".yaml")
		}
		if g.Routability == routabilityCluster {
			g.Addresses = nil // the cluster's range is not known
		}
		list = append(list, c.gateway(t, g))
	}
	l.Want(list)
	for _, g := range list {
		l.settled(t, g)
	}
	for _, g := range list {
		if o := l.Observed(g.Key()); o.Problem != "" {
			t.Errorf("%s: %s", g.Key(), o.Problem)
		}
	}
	c.awaitPods(t, l, "plain")
}

// awaitPods waits for a Deployment's ReplicaSet to have made its Pods, which Pod Security must let it.
func (c *realCluster) awaitPods(t *testing.T, l *lab, gateway string) {
	t.Helper()
	l.await(t, "Pods are made", func() bool {
		d, ok := l.kind(kindDeployment).stored(c.namespace, objectName(gateway)).(*appsv1.Deployment)
		return ok && d.Status.Replicas > 0
	})
}

// TestAPIServerChanges walks through changes of one Gateway: ports in between, types of the Service and back, what others fill in and spoil.
func TestAPIServerChanges(t *testing.T) {
	c := newRealCluster(t)
	l, _ := c.lab(t)
	g := c.gateway(t, testGateway("web"))
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	services := c.admin.CoreV1().Services(c.namespace)
	step := func(what string, change func(*plan.Gateway)) *corev1.Service {
		t.Helper()
		t.Log(what)
		change(&g)
		l.Want([]plan.Gateway{g})
		l.settled(t, g)
		s, err := services.Get(t.Context(), "gatehouse-web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ports := func(numbers ...uint16) func(*plan.Gateway) {
		return func(g *plan.Gateway) {
			g.Ports = nil
			for _, n := range numbers {
				name := "-" + string([]byte{'0' + byte(n/1000%10), '0' + byte(n/100%10), '0' + byte(n/10%10), '0' + byte(n%10)})
				g.Ports = append(g.Ports, plan.Port{Number: n, Protocol: "TCP", Name: "tcp" + name}, plan.Port{Number: n, Protocol: "UDP", Name: "udp" + name})
			}
		}
	}
	first := step("two ports, TCP and UDP", ports(80, 8443))
	second := step("one in between", ports(80, 443, 8443))
	if len(second.Spec.Ports) != 6 || second.Spec.Ports[0].NodePort != first.Spec.Ports[0].NodePort || first.Spec.Ports[0].NodePort == 0 {
		t.Errorf("ports %v, before %v: the node port that the cluster chose did not stay", second.Spec.Ports, first.Spec.Ports)
	}
	step("one less", ports(443, 8443))
	serviceOf := func(text string) func(*plan.Gateway) {
		return func(g *plan.Gateway) {
			g.Parameters.Service = nil
			if err := yaml.UnmarshalStrict([]byte(text), &g.Parameters); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, text := range []string{"service: {externalTrafficPolicy: Local}", "service: {type: NodePort, externalTrafficPolicy: Local}",
		"service: {type: ClusterIP, externalTrafficPolicy: Local}", "service: {type: LoadBalancer, annotations: {a: b}}", "service: {type: ClusterIP}",
		"service: {}"} {
		step(text, serviceOf(text))
	}
	if got := step("routability Cluster", func(g *plan.Gateway) { g.Routability = routabilityCluster }); got.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("the Service is of type %s", got.Spec.Type)
	}
	step("and back", func(g *plan.Gateway) { g.Routability = "" })
	step("an address", func(g *plan.Gateway) { g.Addresses = []plan.Address{{Type: addressIP, Value: "192.0.2.7"}} })
	step("none", func(g *plan.Gateway) { g.Addresses = nil })
	step("replicas", func(g *plan.Gateway) { g.Parameters = replicas(2) })

	l.settled(t, g)
	c.spoil(t, l, g)
	step("no replicas: the field is an autoscaler's", func(g *plan.Gateway) { g.Parameters.Replicas = nil })
	l.await(t, "the budget is gone", func() bool { return l.kind(kindBudget).stored(c.namespace, "gatehouse-web") == nil })
	c.scale(t, l, g)
}

// scale does what an autoscaler does, and looks whether the number stays.
func (c *realCluster) scale(t *testing.T, l *lab, g plan.Gateway) {
	t.Helper()
	name := objectName(g.Origin.Name)
	four := []byte(`{"spec":{"replicas":4}}`)
	if _, err := c.admin.AppsV1().Deployments(c.namespace).Patch(t.Context(), name, "application/merge-patch+json", four,
		metav1.PatchOptions{FieldManager: "autoscaler"}, "scale"); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the number is observed", func() bool { return l.Observed(g.Key()).Replicas == 4 })
	g.Parameters.DrainSeconds = new(int32)
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	d, err := c.admin.AppsV1().Deployments(c.namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if *d.Spec.Replicas != 4 {
		t.Errorf("%d replicas, want the autoscaler's 4", *d.Spec.Replicas)
	}
}

// spoil changes fields of ours and of nobody's as another manager, and gives the load balancer an address.
func (c *realCluster) spoil(t *testing.T, l *lab, g plan.Gateway) {
	t.Helper()
	services, name := c.admin.CoreV1().Services(c.namespace), objectName(g.Origin.Name)
	edit := []byte(`{"metadata":{"annotations":{"their":"own"},"labels":{"gatehouse.dev/gateway":"theirs"}},"spec":{"type":"NodePort"}}`)
	if _, err := services.Patch(t.Context(), name, "application/merge-patch+json", edit, metav1.PatchOptions{FieldManager: "someone"}); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the edit is seen and undone", func() bool {
		s, ok := l.kind(kindService).stored(c.namespace, name).(*corev1.Service)
		return ok && s.Annotations["their"] == "own" && s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Labels[gatewayLabel] == name
	})
	status := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}`)
	if _, err := services.Patch(t.Context(), name, "application/merge-patch+json", status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the address is observed", func() bool {
		o := l.Observed(g.Key())
		return o.ServiceReady && len(o.Addresses) == 1 && o.Addresses[0].Value == "192.0.2.9"
	})
	// The label by which it is found. The informer sees the object vanish, and it is found by its name and owner.
	edit = []byte(`{"metadata":{"labels":{"gatehouse.dev/managed-by":null}}}`)
	if _, err := services.Patch(t.Context(), name, "application/merge-patch+json", edit, metav1.PatchOptions{FieldManager: "someone"}); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the label is back", func() bool {
		o := l.Observed(g.Key())
		s := l.kind(kindService).stored(c.namespace, name)
		return s != nil && s.GetLabels()[managedByLabel] != "" && o.ServiceReady
	})
}

// TestAPIServerEnds: the objects of a deleted Gateway end by themselves while no controller runs, and a Gateway that was made again gets new ones.
// A rightful removal works with the chart's rights.
func TestAPIServerEnds(t *testing.T) {
	c := newRealCluster(t)
	l, stop := c.lab(t)
	gone, stays, unwanted := c.gateway(t, testGateway("gone")), c.gateway(t, testGateway("stays")), c.gateway(t, testGateway("unwanted"))
	l.Want([]plan.Gateway{gone, stays, unwanted})
	for _, g := range []plan.Gateway{gone, stays, unwanted} {
		l.settled(t, g)
	}
	l.Want([]plan.Gateway{gone, stays})
	l.await(t, "what is not wanted is gone", func() bool { return len(l.kind(kindDeployment).of(unwanted.Key())) == 0 })

	stop()
	if err := c.gateways.Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	watcher, _ := c.lab(t) // it wants nothing, so it writes and removes nothing
	watcher.await(t, "the garbage collector is done", func() bool {
		for _, k := range watcher.kinds {
			if len(k.of(gone.Key())) > 0 {
				return false
			}
		}
		return len(watcher.kind(kindDeployment).of(stays.Key())) > 0
	})
	if _, err := c.admin.CoreV1().Services(c.namespace).Get(t.Context(), "gatehouse-gone", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Service of a deleted Gateway: %v", err)
	}
	again := c.gateway(t, testGateway("gone"))
	watcher.Want([]plan.Gateway{again, stays})
	watcher.settled(t, again)
	watcher.settled(t, stays)
}
