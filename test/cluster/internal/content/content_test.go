package content

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func testPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "n", UID: "u", Labels: map[string]string{"b": "2", "a": "x \"y\""}, Annotations: map[string]string{"k": "v"},
		},
		Spec: corev1.PodSpec{ServiceAccountName: "s", NodeName: "node"},
	}
}

func TestField(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.name": "p", "metadata.namespace": "n", "metadata.uid": "u", "metadata.labels['b']": "2", "metadata.labels['c']": "",
		"metadata.annotations['k']": "v", "metadata.labels": "a=\"x \\\"y\\\"\"\nb=\"2\"\n", "spec.nodeName": "node",
		"spec.serviceAccountName": "s", "status.podIP": "10.0.0.1", "status.hostIP": "10.0.0.2",
	} {
		got, err := field(testPod(), Facts{PodIP: "10.0.0.1", NodeIP: "10.0.0.2"}, path)
		if err != nil || got != want {
			t.Errorf("%s: %q, error %v, want %q", path, got, err, want)
		}
	}
	if _, err := field(testPod(), Facts{}, "spec.hostname"); err == nil {
		t.Error("a field that is not supported has a value")
	}
}

func TestResourceField(t *testing.T) {
	q := resource.MustParse
	container := &corev1.Container{Resources: corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{corev1.ResourceCPU: q("1500m")},
		Requests: corev1.ResourceList{corev1.ResourceMemory: q("10Mi")},
	}}
	facts := Facts{Allocatable: corev1.ResourceList{corev1.ResourceMemory: q("1Gi")}}
	for name, test := range map[string]struct{ resource, divisor, want string }{
		"rounded up":          {"limits.cpu", "0", "2"},
		"in thousandths":      {"limits.cpu", "1m", "1500"},
		"in mebibytes":        {"requests.memory", "1Mi", "10"},
		"the node's":          {"limits.memory", "1Mi", "1024"},
		"no request":          {"requests.cpu", "0", "0"},
		"bytes":               {"requests.memory", "0", "10485760"},
		"more than there are": {"requests.memory", "1Gi", "1"},
	} {
		got, err := resourceField(container, facts, &corev1.ResourceFieldSelector{Resource: test.resource, Divisor: q(test.divisor)})
		if err != nil || got != test.want {
			t.Errorf("%s: %q, error %v, want %q", name, got, err, test.want)
		}
	}
}

func TestEnvironmentProblems(t *testing.T) {
	yes := true
	r := &Resolver{Client: fake.NewClientset(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "there"}, Data: map[string]string{"key": "value"},
	}), Base: map[string]string{"BASE": "b"}}
	ref := func(name, key string, optional *bool) corev1.EnvVar {
		return corev1.EnvVar{Name: "V", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional}}}
	}
	for name, test := range map[string]struct {
		variable corev1.EnvVar
		want     map[string]string
		wantErr  string
	}{
		"there":           {variable: ref("there", "key", nil), want: map[string]string{"BASE": "b", "HOSTNAME": "p", "V": "value"}},
		"no object":       {variable: ref("none", "key", nil), wantErr: "not found"},
		"no key":          {variable: ref("there", "other", nil), wantErr: "has no key other"},
		"optional object": {variable: ref("none", "key", &yes), want: map[string]string{"BASE": "b", "HOSTNAME": "p"}},
		"optional key":    {variable: ref("there", "other", &yes), want: map[string]string{"BASE": "b", "HOSTNAME": "p"}},
		"expanded":        {variable: corev1.EnvVar{Name: "V", Value: "<$(BASE)>"}, want: map[string]string{"BASE": "b", "HOSTNAME": "p", "V": "<b>"}},
	} {
		got, err := r.Environment(t.Context(), testPod(), &corev1.Container{Env: []corev1.EnvVar{test.variable}}, Facts{})
		if test.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("%s: error %v, want one with %q", name, err, test.wantErr)
			}
			continue
		}
		if err != nil || !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, error %v, want %v", name, got, err, test.want)
		}
	}
}

func TestVolumesStayInTheirFolder(t *testing.T) {
	r := &Resolver{Client: fake.NewClientset(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}, Data: map[string]string{"key": "value"},
	})}
	folder := t.TempDir()
	v := r.NewVolumes(folder)
	volume := func(path string) *corev1.Pod {
		pod := testPod()
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "key", Path: path}}}}}}
		return pod
	}
	for path, allowed := range map[string]bool{"a": true, "a/b": true, "../a": false, "/a": false, "a/../../b": false, "..data": false} {
		if err := v.Write(t.Context(), volume(path), Facts{}); (err == nil) != allowed {
			t.Errorf("path %q: error %v", path, err)
		}
	}
	for path, allowed := range map[string]bool{"": true, "a": true, "../a": false, "/etc": false} {
		source, err := v.Source(volume("a"), &corev1.VolumeMount{Name: "v", SubPath: path}, nil)
		if (err == nil) != allowed || allowed && !strings.HasPrefix(source, filepath.Join(folder, "v")) {
			t.Errorf("subPath %q: %q, error %v", path, source, err)
		}
	}
}

func TestTrustBundles(t *testing.T) {
	certificate := func() string {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	one, two := certificate(), certificate()
	bundle := func(name, text string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: text}}
	}
	r := &Resolver{Client: fake.NewClientset(bundle("twice", one+two+"# a comment\n"+one))}
	name, none, yes := "twice", "none", true
	pod := func(source *corev1.ClusterTrustBundleProjection) *corev1.Pod {
		source.Path = "ca.pem"
		p := testPod()
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ClusterTrustBundle: source}}}}}}
		return p
	}
	folder := t.TempDir()
	v := r.NewVolumes(folder)
	if err := v.Write(t.Context(), pod(&corev1.ClusterTrustBundleProjection{Name: &name}), Facts{}); err != nil {
		t.Fatal(err)
	}
	got := read(t, folder, "v/ca.pem")[0]
	if got != one+two && got != two+one {
		t.Errorf("the bundle became %q, want each certificate once", got)
	}
	if err := v.Write(t.Context(), pod(&corev1.ClusterTrustBundleProjection{Name: &none}), Facts{}); err == nil {
		t.Error("a bundle that does not exist was written")
	}
	if err := v.Write(t.Context(), pod(&corev1.ClusterTrustBundleProjection{Name: &none, Optional: &yes}), Facts{}); err != nil {
		t.Errorf("an optional one: %v", err)
	}
}
