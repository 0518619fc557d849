package balancer

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"gatehouse.dev/gatehouse/test/cluster/internal/network"
)

// service makes a load balancer. Its name is its identity, and the sooner in the alphabet the older it is.
func service(name, request string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "default", UID: types.UID(name), CreationTimestamp: metav1.NewTime(time.Unix(int64(name[0]), 0)),
		},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerIP: request},
	}
}

func TestAddresses(t *testing.T) {
	ranges, err := network.Divide(netip.MustParsePrefix("10.88.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	b := New(client, ranges, slog.New(slog.DiscardHandler))
	class := "example.com/other"
	foreign := service("f", "")
	foreign.Spec.LoadBalancerClass = &class
	internal := service("i", "")
	internal.Spec.Type = corev1.ServiceTypeClusterIP
	was := internal.DeepCopy()
	was.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.88.192.9"}}

	// Each step is the whole list of Services and the addresses that they have after it.
	steps := []struct {
		name string
		list []*corev1.Service
		want map[string]string
	}{
		{"assigned in order", []*corev1.Service{service("b", ""), service("a", "")}, map[string]string{"a": "10.88.192.1", "b": "10.88.192.2"}},
		{"kept", []*corev1.Service{service("a", ""), service("b", ""), service("c", "")},
			map[string]string{"a": "10.88.192.1", "b": "10.88.192.2", "c": "10.88.192.3"}},
		{"asked for", []*corev1.Service{service("a", ""), service("d", "10.88.207.7")}, map[string]string{"a": "10.88.192.1", "d": "10.88.207.7"}},
		{"asked for twice", []*corev1.Service{service("d", "10.88.207.7"), service("e", "10.88.207.7")}, map[string]string{"d": "10.88.207.7", "e": ""}},
		{"then free", []*corev1.Service{service("e", "10.88.207.7")}, map[string]string{"e": "10.88.207.7"}},
		{"outside of the range", []*corev1.Service{service("g", "10.99.0.1"), service("h", "nonsense")}, map[string]string{"g": "", "h": ""}},
		{"other classes and types", []*corev1.Service{foreign, internal}, map[string]string{"f": "", "i": ""}},
		{"no load balancer any more", []*corev1.Service{was}, map[string]string{"i": ""}},
		{"released addresses come last", []*corev1.Service{service("j", "")}, map[string]string{"j": "10.88.192.4"}},
	}
	for _, step := range steps {
		for _, s := range step.list {
			_ = client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), "default", s.Name)
			if err := client.Tracker().Add(s.DeepCopy()); err != nil {
				t.Fatal(err)
			}
		}
		if !b.sync(context.Background(), step.list) {
			t.Fatalf("%s: not done", step.name)
		}
		for name, want := range step.want {
			s, err := client.CoreV1().Services("default").Get(context.Background(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if in := s.Status.LoadBalancer.Ingress; len(in) > 0 {
				got = in[0].IP
			}
			if got != want {
				t.Errorf("%s: service %s has %q, want %q", step.name, name, got, want)
			}
		}
	}
}
