package clusterdns

import (
	"slices"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func service(name string, spec corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Spec: spec}
}

func TestFind(t *testing.T) {
	no, host := false, "db-0"
	objects := []runtime.Object{
		service("web", corev1.ServiceSpec{ClusterIP: "10.88.128.9"}),
		service("db", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}),
		service("all", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true}),
		service("none", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}),
		service("old", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}),
	}
	for _, owner := range []string{"db", "all"} {
		objects = append(objects, &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: owner + "-1", Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: owner}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.88.0.9"}}, {Addresses: []string{"10.88.0.7"}, Hostname: &host},
				{Addresses: []string{"10.88.0.8"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
			},
		})
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	server := New(factory, "cluster.local")
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	factory.WaitForCacheSync(stop)

	for name, test := range map[string]struct {
		name   string
		want   []string
		absent bool
	}{
		"service":            {name: "web.shop.svc.cluster.local.", want: []string{"10.88.128.9"}},
		"upper case":         {name: "Web.SHOP.svc.Cluster.local.", want: []string{"10.88.128.9"}},
		"headless":           {name: "db.shop.svc.cluster.local.", want: []string{"10.88.0.7", "10.88.0.9"}},
		"not ready as well":  {name: "all.shop.svc.cluster.local.", want: []string{"10.88.0.7", "10.88.0.8", "10.88.0.9"}},
		"headless and empty": {name: "none.shop.svc.cluster.local."},
		"by host name":       {name: "db-0.db.shop.svc.cluster.local.", want: []string{"10.88.0.7"}},
		"by address":         {name: "10-88-0-9.db.shop.svc.cluster.local.", want: []string{"10.88.0.9"}},
		"external":           {name: "old.shop.svc.cluster.local.", want: []string{"example.com."}},
		"no such host":       {name: "db-1.db.shop.svc.cluster.local.", absent: true},
		"host of a service":  {name: "a.web.shop.svc.cluster.local.", absent: true},
		"no such service":    {name: "api.shop.svc.cluster.local.", absent: true},
		"other namespace":    {name: "web.default.svc.cluster.local.", absent: true},
		"too deep":           {name: "a.b.web.shop.svc.cluster.local.", absent: true},
		"namespace alone":    {name: "shop.svc.cluster.local.", absent: true},
		"the world":          {name: "example.com.", absent: true},
	} {
		records, exists := server.find(test.name)
		var got []string
		for _, record := range records {
			if header := record.Header(); header.Name != test.name || header.Class != dns.ClassINET {
				t.Errorf("%s: the answer is for %s", name, header.Name)
			}
			switch r := record.(type) {
			case *dns.A:
				got = append(got, r.A.String())
			case *dns.CNAME:
				got = append(got, r.Target)
			}
		}
		if exists == test.absent || !slices.Equal(got, test.want) {
			t.Errorf("%s: %s is %v (exists: %t), want %v", name, test.name, got, exists, test.want)
		}
	}
}
