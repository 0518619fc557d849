package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

const (
	gatewayGroup      = "gateway.networking.k8s.io"
	experimentalGroup = "gateway.networking.x-k8s.io"
	manager           = "e2e"
)

// plural returns the resource of a kind, as all kinds in use spell theirs.
func plural(kind string) string {
	name := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(name, "ss"):
		return name + "es"
	case strings.HasSuffix(name, "cy"):
		return strings.TrimSuffix(name, "y") + "ies"
	case strings.HasSuffix(name, "s"):
		return name
	}
	return name + "s"
}

// objects are those of a group, version and kind in a namespace.
func (l *lab) objects(apiVersion, kind, namespace string) dynamic.ResourceInterface {
	gv, _ := schema.ParseGroupVersion(apiVersion) // a wrong one is not found
	return l.dynamic.Resource(gv.WithResource(plural(kind))).Namespace(namespace)
}

// apply applies a manifest of several objects. Those without a namespace go into the given one; "cluster" has none.
func (l *lab) apply(t *testing.T, namespace, manifest string) {
	t.Helper()
	for _, text := range strings.Split(manifest, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		where := object.GetNamespace()
		switch object.GetKind() {
		case "Namespace", "GatewayClass":
		default:
			if where == "" {
				where = namespace
				object.SetNamespace(where)
			}
		}
		if _, err := l.objects(object.GetAPIVersion(), object.GetKind(), where).Apply(t.Context(), object.GetName(), object,
			metav1.ApplyOptions{FieldManager: manager, Force: true}); err != nil {
			t.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// remove deletes an object.
func (l *lab) remove(t *testing.T, apiVersion, kind, namespace, name string) {
	t.Helper()
	background := metav1.DeletePropagationBackground
	if err := l.objects(apiVersion, kind, namespace).Delete(t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatalf("%s %s/%s: %v", kind, namespace, name, err)
	}
}

// until polls, for nothing tells of what other processes do, until check has no complaint.
func until(t *testing.T, check func(ctx context.Context) error) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return time.Since(began)
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s: %v", patience, last)
		case <-ticker.C:
		}
	}
}

// condition is one of a status, wherever in it.
type condition struct {
	where              string // "", "listener http", "parent a/b", "ancestor a/b"
	kind               string
	status, reason     string
	message            string
	observedGeneration int64
}

// conditions returns all of an object's.
func conditions(o *unstructured.Unstructured) []condition {
	var out []condition
	add := func(where string, holder map[string]any) {
		list, _, _ := unstructured.NestedSlice(holder, "conditions")
		for _, item := range list {
			c, _ := item.(map[string]any)
			one := condition{where: where}
			one.kind, _ = c["type"].(string)
			one.status, _ = c["status"].(string)
			one.reason, _ = c["reason"].(string)
			one.message, _ = c["message"].(string)
			one.observedGeneration, _ = c["observedGeneration"].(int64)
			out = append(out, one)
		}
	}
	status, _, _ := unstructured.NestedMap(o.Object, "status")
	add("", status)
	for field, label := range map[string]string{"listeners": "listener", "parents": "parent", "ancestors": "ancestor"} {
		list, _, _ := unstructured.NestedSlice(status, field)
		for _, item := range list {
			holder, _ := item.(map[string]any)
			name, _ := holder["name"].(string)
			for _, ref := range []string{"parentRef", "ancestorRef"} {
				if r, ok := holder[ref].(map[string]any); ok {
					name, _ = r["name"].(string)
				}
			}
			add(label+" "+name, holder)
		}
	}
	return out
}

// want is a condition that is expected: where, type, status and reason; an empty reason is any.
type want struct{ where, kind, status, reason string }

// says waits until an object has conditions of its current generation and returns the messages.
func (l *lab) says(t *testing.T, apiVersion, kind, namespace, name string, wanted ...want) []string {
	t.Helper()
	var messages []string
	until(t, func(ctx context.Context) error {
		messages = messages[:0]
		o, err := l.objects(apiVersion, kind, namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		has := conditions(o)
	each:
		for _, w := range wanted {
			for _, c := range has {
				if c.where == w.where && c.kind == w.kind && c.status == w.status && (w.reason == "" || c.reason == w.reason) &&
					c.observedGeneration == o.GetGeneration() {
					messages = append(messages, c.message)
					continue each
				}
			}
			return fmt.Errorf("%s %s/%s of generation %d: want %+v among %+v", kind, namespace, name, o.GetGeneration(), w, has)
		}
		return nil
	})
	return messages
}

const gatewayV1 = gatewayGroup + "/v1"

// programmed waits until a Gateway is programmed and returns its address.
func (l *lab) programmed(t *testing.T, namespace, name string) netip.Addr {
	t.Helper()
	l.says(t, gatewayV1, "Gateway", namespace, name, want{"", "Programmed", "True", "Programmed"})
	return l.address(t, namespace, name)
}

// address returns the one address of a Gateway.
func (l *lab) address(t *testing.T, namespace, name string) netip.Addr {
	t.Helper()
	o, err := l.objects(gatewayV1, "Gateway", namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addresses, _, _ := unstructured.NestedSlice(o.Object, "status", "addresses")
	if len(addresses) != 1 {
		t.Fatalf("Gateway %s/%s has addresses %v, want one", namespace, name, addresses)
	}
	value, _ := addresses[0].(map[string]any)["value"].(string)
	address, err := netip.ParseAddr(value)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// backend applies a namespace with the Service echo, or another name, and one Pod behind it.
func (l *lab) backend(t *testing.T, namespace, name string) {
	t.Helper()
	l.apply(t, namespace, strings.NewReplacer("NAMESPACE", namespace, "NAME", name).Replace(`
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec:
  selector: {app: NAME}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: echo
        ports: [{containerPort: 8080}]
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
`))
}

// tlsSecret makes a manifest of a Secret with a certificate for a name, and returns its key as well.
func tlsSecret(t *testing.T, name, host string) (manifest string, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": map[string]any{"name": name},
		"stringData": map[string]any{
			"tls.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), "tls.key": string(key),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text), key
}
