package content

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Facts are what a pod learns of itself and its node besides its object.
type Facts struct {
	PodIP, NodeIP string
	// Allocatable is what the node offers: the limit of what has none.
	Allocatable corev1.ResourceList
}

// field answers a fieldRef (ObjectFieldSelector).
func field(pod *corev1.Pod, facts Facts, path string) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return pod.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return pod.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return facts.PodIP, nil
	case "status.hostIP", "status.hostIPs":
		return facts.NodeIP, nil
	}
	return "", fmt.Errorf("fieldPath %q is not supported", path)
}

// subscript reads the key of a path such as metadata.labels['app'].
func subscript(path, of string) (string, bool) {
	rest, ok := strings.CutPrefix(path, of+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// lines writes a map as the downward API does: key="value", sorted.
func lines(m map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%s\n", key, strconv.Quote(m[key]))
	}
	return b.String()
}

// resourceField answers a resourceFieldRef: "limits.cpu" with divisor "1m" of a limit of half a CPU is 500. Parts are rounded up.
func resourceField(container *corev1.Container, facts Facts, ref *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := container.Resources.Limits
	switch kind {
	case "limits":
	case "requests":
		list = container.Resources.Requests
	default:
		return "", fmt.Errorf("resource %q is neither limits.* nor requests.*", ref.Resource)
	}
	quantity, ok := list[corev1.ResourceName(name)]
	if !ok && kind == "limits" {
		quantity = facts.Allocatable[corev1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(divideUp(quantity.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(divideUp(quantity.Value(), divisor.Value()), 10), nil
}

func divideUp(a, b int64) int64 {
	if b <= 0 {
		return a
	}
	return (a + b - 1) / b
}
