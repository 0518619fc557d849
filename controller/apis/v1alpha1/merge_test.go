package v1alpha1

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

func TestMerge(t *testing.T) {
	tests := map[string]struct {
		class, gateway, want string
	}{
		"nothing said":                 {"{}", "{}", "{}"},
		"the class's alone":            {"{replicas: 3, service: {type: NodePort}}", "{}", "{replicas: 3, service: {type: NodePort}}"},
		"the Gateway's alone":          {"{}", "{replicas: 3, service: {type: NodePort}}", "{replicas: 3, service: {type: NodePort}}"},
		"the Gateway's wins":           {"{replicas: 3, image: a}", "{replicas: 5, image: b}", "{replicas: 5, image: b}"},
		"zero is said":                 {"{replicas: 3, drainSeconds: 30}", "{replicas: 0, drainSeconds: 0}", "{replicas: 0, drainSeconds: 0}"},
		"false is said":                {"{logging: {accessLog: true}}", "{logging: {accessLog: false}}", "{logging: {accessLog: false}}"},
		"fields of objects":            {"{service: {type: NodePort}}", "{service: {externalTrafficPolicy: Local}}", "{service: {type: NodePort, externalTrafficPolicy: Local}}"},
		"keys of maps":                 {`{service: {annotations: {a: "1", b: "2"}}}`, `{service: {annotations: {b: "3"}}}`, `{service: {annotations: {a: "1", b: "3"}}}`},
		"resources by name":            {"{resources: {requests: {cpu: 1, memory: 1Gi}}}", "{resources: {requests: {cpu: 2}, limits: {cpu: 3}}}", "{resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 3}}}"},
		"lists as a whole":             {"{imagePullSecrets: [{name: a}, {name: b}]}", "{imagePullSecrets: [{name: c}]}", "{imagePullSecrets: [{name: c}]}"},
		"an empty list is said":        {"{scheduling: {tolerations: [{key: a}]}}", "{scheduling: {tolerations: []}}", "{scheduling: {}}"},
		"deep within scheduling":       {"{scheduling: {nodeSelector: {a: b}, priorityClassName: low}}", "{scheduling: {nodeSelector: {c: d}}}", "{scheduling: {nodeSelector: {a: b, c: d}, priorityClassName: low}}"},
		"an object that says nothing":  {"{admin: {port: 1}}", "{admin: {}}", "{admin: {port: 1}}"},
		"a load balancer's class name": {"{service: {loadBalancerClass: a}}", "{service: {loadBalancerClass: b}}", "{service: {loadBalancerClass: b}}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := written(t, Merge(parsed(t, test.class), parsed(t, test.gateway)))
			if diff := cmp.Diff(written(t, parsed(t, test.want)), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func parsed(t *testing.T, text string) GatewayParametersSpec {
	t.Helper()
	var spec GatewayParametersSpec
	if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func written(t *testing.T, spec GatewayParametersSpec) string {
	t.Helper()
	out, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestMergeEveryField sets every field there is, so that one added later is merged as well.
func TestMergeEveryField(t *testing.T) {
	full := GatewayParametersSpec{}
	fill(reflect.ValueOf(&full).Elem(), 0)
	for i := range reflect.TypeFor[GatewayParametersSpec]().NumField() {
		if reflect.ValueOf(full).Field(i).IsZero() {
			t.Fatalf("the test leaves %s empty", reflect.TypeFor[GatewayParametersSpec]().Field(i).Name)
		}
	}
	for name, got := range map[string]GatewayParametersSpec{
		"of the class":   Merge(full, GatewayParametersSpec{}),
		"of the Gateway": Merge(GatewayParametersSpec{}, full),
		"of both":        Merge(full, full),
	} {
		if diff := cmp.Diff(written(t, full), written(t, got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// fill sets fields to something that is not zero, as deep as types that do not contain themselves go.
func fill(v reflect.Value, depth int) {
	if depth > 12 {
		return
	}
	if v.Type() == reflect.TypeFor[resource.Quantity]() {
		v.Set(reflect.ValueOf(resource.MustParse("3")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	}
}

// TestMergeSharesNothing changes the result and looks at the arguments.
func TestMergeSharesNothing(t *testing.T) {
	class := parsed(t, "{replicas: 1, service: {annotations: {a: b}}}")
	gateway := parsed(t, "{scheduling: {nodeSelector: {c: d}}, resources: {limits: {cpu: 1}}}")
	got := Merge(class, gateway)
	*got.Replicas = 9
	got.Service.Annotations["a"] = "changed"
	got.Scheduling.NodeSelector["c"] = "changed"
	got.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("9")
	if *class.Replicas != 1 || class.Service.Annotations["a"] != "b" {
		t.Errorf("the class's parameters changed: %s", written(t, class))
	}
	if cpu := gateway.Resources.Limits[corev1.ResourceCPU]; gateway.Scheduling.NodeSelector["c"] != "d" || cpu.String() != "1" {
		t.Errorf("the Gateway's parameters changed: %s", written(t, gateway))
	}
}
