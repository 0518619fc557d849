package provision

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

// lab is a Provisioner that runs on client-go's fake of an API server, which knows field management.
type lab struct {
	*Provisioner
	server *fake.Clientset
	ca     atomic.Pointer[[]byte]
	// stirred has room for one word that something happened: an event of an informer, a call of OnChange.
	stirred chan struct{}

	mu      sync.Mutex
	changes map[string]int // guarded by mu: how often OnChange was told of a Gateway
}

func newLab(t *testing.T, server *fake.Clientset) *lab {
	t.Helper()
	l, _ := startLab(t, clients{core: server.CoreV1(), apps: server.AppsV1(), policy: server.PolicyV1(), whole: server}, "")
	l.server = server
	return l
}

// startLab runs a Provisioner until the test ends, or stop is called.
func startLab(t *testing.T, c clients, controller string) (l *lab, stop func()) {
	t.Helper()
	l = &lab{stirred: make(chan struct{}, 1), changes: map[string]int{}}
	l.setCA("first")
	p, err := newProvisioner(Options{
		ControllerName: controller,
		Image:          "gatehouse-proxy:test", ControllerAddress: "controller:18000", ServerName: "controller",
		CA:     func() []byte { return *l.ca.Load() },
		Logger: slog.New(slog.DiscardHandler),
		OnChange: func(gateway string) {
			l.mu.Lock()
			l.changes[gateway]++
			l.mu.Unlock()
			l.stir()
		},
	}, c)
	if err != nil {
		t.Fatal(err)
	}
	l.Provisioner = p
	stir := func(any) { l.stir() }
	for _, k := range p.kinds {
		handler := cache.ResourceEventHandlerFuncs{AddFunc: stir, UpdateFunc: func(any, any) { l.stir() }, DeleteFunc: stir}
		if _, err := k.informer.AddEventHandler(handler); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func (l *lab) setCA(text string) {
	ca := []byte(text)
	l.ca.Store(&ca)
}

func (l *lab) stir() {
	select {
	case l.stirred <- struct{}{}:
	default:
	}
}

// await waits until a condition holds. It looks again whenever something happened.
func (l *lab) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !holds() {
		select {
		case <-l.stirred:
		case <-deadline:
			t.Fatalf("waited in vain until %s; problems: %v", what, l.Observed("shop/web").Problem)
		}
	}
}

// settled waits until the informers have seen what the server has, and the objects of a Gateway are those wanted.
func (l *lab) settled(t *testing.T, g plan.Gateway) {
	t.Helper()
	s := &settings{controller: l.o.ControllerName, image: l.o.Image, address: l.o.ControllerAddress, serverName: l.o.ServerName, ca: *l.ca.Load()}
	list, err := objects(&g, s)
	if err != nil {
		t.Fatal(err)
	}
	l.await(t, "every object is there", func() bool {
		for _, w := range list {
			if !l.same(w, g.Origin.Namespace) {
				return false
			}
		}
		return true
	})
}

// same reports whether an informer holds an object as it is wanted.
func (l *lab) same(w wanted, namespace string) bool {
	k := l.kind(w.kind)
	live := k.stored(namespace, w.name)
	if live == nil {
		return false
	}
	ours, err := k.ours(live, l.o.ControllerName)
	return err == nil && sameConfig(ours, w.config)
}

// writes returns what was written, as "verb resource/name" with how often.
func (l *lab) writes() map[string]int {
	out := map[string]int{}
	for _, a := range l.server.Actions() {
		switch a := a.(type) {
		case clienttesting.PatchAction:
			out["apply "+a.GetResource().Resource+"/"+a.GetName()]++
		case clienttesting.DeleteAction:
			out["delete "+a.GetResource().Resource+"/"+a.GetName()]++
		}
	}
	return out
}

func testGateway(name string) plan.Gateway {
	return plan.Gateway{
		Origin: config.Origin{Kind: "Gateway", Namespace: "shop", Name: name, Generation: 1}, UID: "uid-" + name, Class: "gatehouse",
		Ports: []plan.Port{{Number: 80, Protocol: "TCP", Name: "tcp-80"}},
	}
}

func with(g plan.Gateway, spec v1alpha1.GatewayParametersSpec) plan.Gateway {
	g.Parameters = spec
	return g
}

func replicas(n int32) v1alpha1.GatewayParametersSpec {
	return v1alpha1.GatewayParametersSpec{Replicas: &n}
}

// TestNothingIsWrittenTwice makes a Gateway's objects and looks at what is written when nothing differs: after a change of the generation
// alone, after another start, after others wrote fields of theirs.
func TestNothingIsWrittenTwice(t *testing.T) {
	server := fake.NewClientset()
	l := newLab(t, server)
	g := with(testGateway("web"), replicas(2))
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	want := map[string]int{
		"apply serviceaccounts/gatehouse-web": 1, "apply configmaps/gatehouse-web": 1, "apply services/gatehouse-web": 1,
		"apply deployments/gatehouse-web": 1, "apply poddisruptionbudgets/gatehouse-web": 1,
	}
	if got := l.writes(); !maps.Equal(got, want) {
		t.Fatalf("written: %v, want %v", got, want)
	}

	g.Origin.Generation = 2
	l.Want([]plan.Gateway{g})
	if n := l.queue.Len(); n != 0 {
		t.Errorf("another generation alone puts %d Gateways into the queue", n)
	}

	server.ClearActions()
	again := newLab(t, server)
	again.Want([]plan.Gateway{g})
	again.settled(t, g)
	again.await(t, "the Gateway is observed", func() bool { return again.Observed("shop/web").Replicas == 2 })

	// What the cluster and others fill in.
	service, err := server.CoreV1().Services("shop").Get(t.Context(), "gatehouse-web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Spec.Ports[0].NodePort = 30080
	service.Spec.ClusterIPs = []string{"10.96.0.9"}
	service.Annotations = map[string]string{"lb.example/state": "made"}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.7"}}
	if _, err := server.CoreV1().Services("shop").Update(t.Context(), service, metav1.UpdateOptions{FieldManager: "cloud"}); err != nil {
		t.Fatal(err)
	}
	again.await(t, "the address is observed", func() bool { return again.Observed("shop/web").ServiceReady })
	if err := again.sync(t.Context(), "shop/web"); err != nil {
		t.Fatal(err)
	}
	if got := again.writes(); len(got) != 0 {
		t.Errorf("nothing differed, and %v were written", got)
	}
}

// TestRepair: fields of ours that somebody changed, and objects that somebody removed, come back.
func TestRepair(t *testing.T) {
	l := newLab(t, fake.NewClientset())
	g := testGateway("web")
	l.Want([]plan.Gateway{g})
	l.settled(t, g)

	service, err := l.server.CoreV1().Services("shop").Get(t.Context(), "gatehouse-web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Spec.Type = corev1.ServiceTypeNodePort
	delete(service.Labels, nameLabel)
	if _, err := l.server.CoreV1().Services("shop").Update(t.Context(), service, metav1.UpdateOptions{FieldManager: "someone"}); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the Service is written again", func() bool { return l.writes()["apply services/gatehouse-web"] >= 2 })
	l.settled(t, g)

	if err := l.server.AppsV1().Deployments("shop").Delete(t.Context(), "gatehouse-web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the Deployment is written again", func() bool { return l.writes()["apply deployments/gatehouse-web"] >= 2 })
	l.settled(t, g)
}

// TestNoLongerWanted: what parameters, ports and the list of Gateways do not ask for any more goes, and nothing else.
func TestNoLongerWanted(t *testing.T) {
	l := newLab(t, fake.NewClientset())
	web, api := with(testGateway("web"), replicas(2)), testGateway("api")
	l.Want([]plan.Gateway{web, api})
	l.settled(t, web)
	l.settled(t, api)

	// One replica needs no budget. A Gateway whose listeners do not serve keeps its Service, and so its address.
	web = testGateway("web")
	web.Ports = nil
	l.Want([]plan.Gateway{web, api})
	l.await(t, "the budget is gone", func() bool { return l.kind(kindBudget).stored("shop", "gatehouse-web") == nil })
	l.settled(t, web)
	if l.kind(kindService).stored("shop", "gatehouse-web") == nil {
		t.Error("the Service went with the last port")
	}

	// It carries the label and the owner of what is removed, and somebody else made it.
	stranger := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Namespace: "shop",
		Labels: map[string]string{managedByLabel: "gatehouse.dev_controller"}}}
	owned := l.kind(kindService).stored("shop", "gatehouse-web")
	stranger.OwnerReferences = owned.GetOwnerReferences()
	if _, err := l.server.CoreV1().ConfigMaps("shop").Create(t.Context(), stranger, metav1.CreateOptions{FieldManager: "someone"}); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the stranger is seen", func() bool { return l.kind(kindConfigMap).stored("shop", "stranger") != nil })

	l.Want([]plan.Gateway{api})
	l.await(t, "the objects of web are gone", func() bool {
		return !slices.ContainsFunc(l.kinds, func(k *kind) bool { return k.stored("shop", "gatehouse-web") != nil })
	})
	l.await(t, "web is not observed", func() bool { return l.Observed("shop/web").equal(Observed{}) })
	l.settled(t, api)
	if l.writes()["delete configmaps/stranger"] != 0 {
		t.Error("an object that somebody else made was removed")
	}
	for write := range l.writes() {
		if write == "delete services/gatehouse-api" || write == "delete deployments/gatehouse-api" {
			t.Error(write)
		}
	}
}

// TestKept: a Gateway that cannot be accepted loses its proxies and keeps its Service, which goes when the Gateway is gone.
func TestKept(t *testing.T) {
	l := newLab(t, fake.NewClientset())
	web := testGateway("web")
	l.Want([]plan.Gateway{web})
	l.settled(t, web)
	l.Want(nil, "shop/web")
	l.await(t, "the proxies are gone", func() bool { return l.kind(kindDeployment).stored("shop", "gatehouse-web") == nil })
	if err := l.sync(t.Context(), "shop/web"); err != nil {
		t.Fatal(err)
	}
	if l.writes()["delete services/gatehouse-web"] != 0 {
		t.Error("the Service went, and with it the address")
	}
	if got, ok := l.GatewayOf("shop", "gatehouse-web"); ok {
		t.Errorf("an account speaks for %s, which is not accepted", got)
	}
	l.Want([]plan.Gateway{web})
	l.settled(t, web)
	l.Want(nil)
	l.await(t, "the Service is gone", func() bool { return l.kind(kindService).stored("shop", "gatehouse-web") == nil })
}

// TestStart: what a controller before made for Gateways that are gone is removed at the first Want, and not before.
func TestStart(t *testing.T) {
	server := fake.NewClientset()
	l := newLab(t, server)
	web, api := testGateway("web"), testGateway("api")
	l.Want([]plan.Gateway{web, api})
	l.settled(t, web)
	l.settled(t, api)

	server.ClearActions()
	again := newLab(t, server)
	again.await(t, "both are seen", func() bool {
		return again.kind(kindDeployment).stored("shop", "gatehouse-web") != nil && again.kind(kindDeployment).stored("shop", "gatehouse-api") != nil
	})
	if err := again.sync(t.Context(), "shop/web"); err != nil {
		t.Fatal(err)
	}
	if got := again.writes(); len(got) != 0 {
		t.Fatalf("before it knows what is wanted it wrote %v", got)
	}
	// The first Provisioner lets go as well, or it would make the objects again.
	l.Want([]plan.Gateway{web})
	again.Want([]plan.Gateway{web})
	again.await(t, "the objects of api are gone", func() bool { return again.kind(kindDeployment).stored("shop", "gatehouse-api") == nil })
	again.settled(t, web)
}

// TestTaken: an object of the name that is not this Gateway's is left alone and reported; the Gateway is provisioned once it is gone.
func TestTaken(t *testing.T) {
	tests := map[string]metav1.ObjectMeta{
		"nobody's":                     {},
		"with our label and no owner":  {Labels: map[string]string{managedByLabel: "gatehouse.dev_controller"}},
		"another Gateway's":            {Labels: map[string]string{managedByLabel: "gatehouse.dev_controller"}, OwnerReferences: ownedByKind("Gateway", gatewayAPIVersion, "api")},
		"a Gateway's of another group": {Labels: map[string]string{managedByLabel: "gatehouse.dev_controller"}, OwnerReferences: ownedByKind("Gateway", "networking.istio.io/v1", "web")},
		"the Gateway's, made by another controller": {
			Labels: map[string]string{managedByLabel: "example.com_other"}, OwnerReferences: ownedByKind("Gateway", gatewayAPIVersion, "web")},
	}
	for name, meta := range tests {
		t.Run(name, func(t *testing.T) {
			meta.Name, meta.Namespace = "gatehouse-web", "shop"
			theirs := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ExternalName: "theirs"}}
			l := newLab(t, fake.NewClientset(theirs))
			g := testGateway("web")
			l.Want([]plan.Gateway{g})
			l.await(t, "the problem is told", func() bool { return l.Observed("shop/web").Problem != "" })
			const want = "Service shop/gatehouse-web exists and was not made for this Gateway: delete it, or give the Gateway another name"
			if got := l.Observed("shop/web").Problem; got != want {
				t.Errorf("problem %q, want %q", got, want)
			}
			if n := l.writes()["apply services/gatehouse-web"]; n != 0 {
				t.Errorf("it was written %d times", n)
			}
			if l.Observed("shop/web").ServiceReady {
				t.Error("somebody else's Service counts as the Gateway's")
			}
			if err := l.server.CoreV1().Services("shop").Delete(t.Context(), "gatehouse-web", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			l.settled(t, g)
			l.await(t, "the problem is gone", func() bool { return l.Observed("shop/web").Problem == "" })
		})
	}
}

func ownedByKind(kind, version, name string) []metav1.OwnerReference {
	controller := true
	return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: "uid-" + "x", Controller: &controller}}
}

// TestMadeAgain: a Gateway that was deleted and made again takes its objects over, and with them its address.
func TestMadeAgain(t *testing.T) {
	l := newLab(t, fake.NewClientset())
	g := testGateway("web")
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	g.UID = "another"
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	for _, k := range l.kinds {
		if o := k.stored("shop", "gatehouse-web"); o != nil && (len(o.GetOwnerReferences()) != 1 || o.GetOwnerReferences()[0].UID != "another") {
			t.Errorf("%s has owners %v", k.name, o.GetOwnerReferences())
		}
	}
	for write := range l.writes() {
		if write[:6] == "delete" {
			t.Error(write)
		}
	}
}

// TestRetry: errors that pass are not reported, and tried again.
func TestRetry(t *testing.T) {
	server := fake.NewClientset()
	var failures atomic.Int32
	server.PrependReactor("patch", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		if failures.Add(1) <= 3 {
			return true, nil, apierrors.NewInternalError(errors.New("the server is busy"))
		}
		return false, nil, nil
	})
	l := newLab(t, server)
	g := testGateway("web")
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	if got := l.Observed("shop/web").Problem; got != "" {
		t.Errorf("an error that passed was reported: %s", got)
	}
}

// TestRefused: what the API server refuses is reported at once, and the other objects are made all the same.
func TestRefused(t *testing.T) {
	server := fake.NewClientset()
	server.PrependReactor("patch", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), "gatehouse-web", nil)
	})
	l := newLab(t, server)
	l.Want([]plan.Gateway{testGateway("web")})
	l.await(t, "the problem is told", func() bool { return l.Observed("shop/web").Problem != "" })
	l.await(t, "the Deployment is made", func() bool { return l.kind(kindDeployment).stored("shop", "gatehouse-web") != nil })
}

// TestRotation: another CA changes the ConfigMap and nothing else, so that no Pod is replaced.
func TestRotation(t *testing.T) {
	l := newLab(t, fake.NewClientset())
	g := testGateway("web")
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	l.server.ClearActions()
	l.setCA("first and second")
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	// Only the ConfigMap. It may be applied twice: what looks at it before the informer has told of the first time does so again.
	const configMap = "apply configmaps/gatehouse-web"
	if got := l.writes(); len(got) != 1 || got[configMap] < 1 || got[configMap] > 2 {
		t.Errorf("written: %v, want %s", got, configMap)
	}
	data := l.kind(kindConfigMap).stored("shop", "gatehouse-web").(*corev1.ConfigMap).Data
	if data[caKey] != "first and second" {
		t.Errorf("the ConfigMap holds %q", data)
	}
}

// TestGatewayOf: an account speaks for a Gateway only when it was made for one that is wanted.
func TestGatewayOf(t *testing.T) {
	// Somebody made the account that Gateway api would get.
	l := newLab(t, fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "gatehouse-api", Namespace: "shop"}}))
	// Gateway b-c in a and c in a-b.
	first, second := testGateway("b-c"), testGateway("c")
	first.Origin.Namespace, second.Origin.Namespace = "a", "a-b"
	web := testGateway("web")
	l.Want([]plan.Gateway{web, testGateway("api"), first, second})
	for _, g := range []plan.Gateway{web, first, second} {
		l.settled(t, g)
	}
	tests := map[string]struct{ namespace, account, want string }{
		"web":                  {"shop", "gatehouse-web", "shop/web"},
		"b-c in a":             {"a", "gatehouse-b-c", "a/b-c"},
		"c in a-b":             {"a-b", "gatehouse-c", "a-b/c"},
		"c in a":               {"a", "gatehouse-c", ""},
		"another namespace":    {"other", "gatehouse-web", ""},
		"another account":      {"shop", "default", ""},
		"the Gateway's name":   {"shop", "web", ""},
		"somebody's own":       {"shop", "gatehouse-api", ""},
		"a name with a slash":  {"shop/gatehouse-web", "", ""},
		"nothing":              {"", "", ""},
		"of no wanted Gateway": {"shop", "gatehouse-old", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := l.GatewayOf(test.namespace, test.account)
			if got != test.want || ok != (test.want != "") {
				t.Errorf("GatewayOf(%q, %q) = %q, %v; want %q", test.namespace, test.account, got, ok, test.want)
			}
		})
	}
	l.Want(nil)
	if got, ok := l.GatewayOf("shop", "gatehouse-web"); ok {
		t.Errorf("the account of a Gateway that is not wanted speaks for %s", got)
	}
}

// TestOnChange: whoever writes a status is told of each change and of nothing else.
func TestOnChange(t *testing.T) {
	l := newLab(t, fake.NewClientset())
	g := testGateway("web")
	l.Want([]plan.Gateway{g})
	l.settled(t, g)
	l.await(t, "the Deployment is observed", func() bool { return l.Observed("shop/web").Replicas == 1 })
	if err := l.sync(t.Context(), "shop/web"); err != nil {
		t.Fatal(err)
	}

	l.mu.Lock()
	before := l.changes["shop/web"]
	l.mu.Unlock()
	d, err := l.server.AppsV1().Deployments("shop").Get(t.Context(), "gatehouse-web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Status.ReadyReplicas = 1
	if _, err := l.server.AppsV1().Deployments("shop").UpdateStatus(t.Context(), d, metav1.UpdateOptions{FieldManager: "kcm"}); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the proxy is ready", func() bool { return l.Observed("shop/web").Ready == 1 })
	told := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.changes["shop/web"]
	}
	l.await(t, "OnChange was called", func() bool { return told() == before+1 })
	if err := l.sync(t.Context(), "shop/web"); err != nil {
		t.Fatal(err)
	}
	if told() != before+1 {
		t.Errorf("told %d times of one change", told()-before)
	}
}

func TestObserve(t *testing.T) {
	two := int32(2)
	service := func(kind corev1.ServiceType, ingress ...corev1.LoadBalancerIngress) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Type: kind, ClusterIPs: []string{"10.96.0.7", "fd00::7"}}}
		s.Status.LoadBalancer.Ingress = ingress
		return s
	}
	deployment := func(ready int32, conditions ...appsv1.DeploymentCondition) *appsv1.Deployment {
		return &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "gatehouse-web"}, Spec: appsv1.DeploymentSpec{Replicas: &two},
			Status: appsv1.DeploymentStatus{ReadyReplicas: ready, Conditions: conditions},
		}
	}
	quota := appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}
	ip, host := plan.Address{Type: "IPAddress", Value: "192.0.2.7"}, plan.Address{Type: "Hostname", Value: "lb.example"}
	own := []plan.Address{{Type: "IPAddress", Value: "10.96.0.7"}, {Type: "IPAddress", Value: "fd00::7"}}
	tests := map[string]struct {
		service    *corev1.Service
		deployment *appsv1.Deployment
		problem    string
		want       Observed
	}{
		"nothing yet":                   {want: Observed{}},
		"a load balancer in the making": {service: service("LoadBalancer"), want: Observed{}},
		"a load balancer": {service: service("LoadBalancer", corev1.LoadBalancerIngress{IP: "192.0.2.7"}, corev1.LoadBalancerIngress{Hostname: "lb.example"}),
			want: Observed{Addresses: []plan.Address{ip, host}, ServiceReady: true}},
		"within the cluster": {service: service("ClusterIP"), want: Observed{Addresses: own, ServiceReady: true}},
		"on the nodes":       {service: service("NodePort"), want: Observed{Addresses: own, ServiceReady: true}},
		"proxies":            {deployment: deployment(1), want: Observed{Replicas: 2, Ready: 1}},
		"no Pod can be made": {deployment: deployment(0, quota),
			want: Observed{Replicas: 2, Problem: "Pods of Deployment shop/gatehouse-web cannot be created: exceeded quota"}},
		"some Pod cannot be made": {deployment: deployment(1, quota), want: Observed{Replicas: 2, Ready: 1}},
		"the graver problem":      {deployment: deployment(0, quota), problem: "taken", want: Observed{Replicas: 2, Problem: "taken"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := observe(test.service, test.deployment, test.problem); !got.equal(test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Image: "i", ControllerAddress: "a:1", ServerName: "s", CA: func() []byte { return nil }}
	server := fake.NewClientset()
	c := clients{core: server.CoreV1(), apps: server.AppsV1(), policy: server.PolicyV1(), whole: server}
	if _, err := newProvisioner(good, c); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"image":   func(o *Options) { o.Image = "" },
		"address": func(o *Options) { o.ControllerAddress = "" },
		"name":    func(o *Options) { o.ServerName = "" },
		"CA":      func(o *Options) { o.CA = nil },
	} {
		o := good
		spoil(&o)
		if _, err := newProvisioner(o, c); err == nil {
			t.Errorf("no %s, and no error", name)
		}
	}
	if _, err := New(good); err == nil {
		t.Error("no Config, and no error")
	}
}
