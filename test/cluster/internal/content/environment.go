package content

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Resolver reads what pods refer to.
type Resolver struct {
	Client kubernetes.Interface
	// Base are the variables that every container has, below its own.
	Base map[string]string
}

// Environment returns a container's variables, which its command and its arguments are expanded with.
func (r *Resolver) Environment(ctx context.Context, pod *corev1.Pod, container *corev1.Container, facts Facts) (map[string]string, error) {
	variables := maps.Clone(r.Base)
	variables["HOSTNAME"] = pod.Name
	if pod.Spec.Hostname != "" {
		variables["HOSTNAME"] = pod.Spec.Hostname
	}
	for _, from := range container.EnvFrom {
		values, err := r.envFrom(ctx, pod.Namespace, from)
		if err != nil {
			return nil, err
		}
		for name, value := range values {
			variables[from.Prefix+name] = value
		}
	}
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			variables[variable.Name] = Expand(variable.Value, variables)
			continue
		}
		value, ok, err := r.valueFrom(ctx, pod, container, facts, variable.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", variable.Name, err)
		}
		if ok {
			variables[variable.Name] = value
		}
	}
	return variables, nil
}

// Pairs writes variables as NAME=value, sorted.
func Pairs(variables map[string]string) []string {
	pairs := make([]string, 0, len(variables))
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		pairs = append(pairs, name+"="+variables[name])
	}
	return pairs
}

func (r *Resolver) envFrom(ctx context.Context, namespace string, from corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		return r.configMap(ctx, namespace, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		return r.secret(ctx, namespace, from.SecretRef.Name, from.SecretRef.Optional)
	}
	return nil, nil
}

// valueFrom returns false for an optional value that does not exist.
func (r *Resolver) valueFrom(ctx context.Context, pod *corev1.Pod, c *corev1.Container, facts Facts,
	from *corev1.EnvVarSource) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		value, err := field(pod, facts, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resourceField(c, facts, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		values, err := r.configMap(ctx, pod.Namespace, ref.Name, ref.Optional)
		return keyOf(values, err, "ConfigMap "+ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		values, err := r.secret(ctx, pod.Namespace, ref.Name, ref.Optional)
		return keyOf(values, err, "Secret "+ref.Name, ref.Key, ref.Optional)
	}
	return "", false, fmt.Errorf("its source is none of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef")
}

func keyOf(values map[string]string, err error, object, key string, optional *bool) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, ok := values[key]
	if !ok && !isTrue(optional) {
		return "", false, fmt.Errorf("%s has no key %s", object, key)
	}
	return value, ok, nil
}

func (r *Resolver) configMap(ctx context.Context, namespace, name string, optional *bool) (map[string]string, error) {
	object, err := r.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	values := map[string]string{}
	maps.Copy(values, object.Data)
	for key, value := range object.BinaryData {
		values[key] = string(value)
	}
	return values, nil
}

func (r *Resolver) secret(ctx context.Context, namespace, name string, optional *bool) (map[string]string, error) {
	object, err := r.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	values := map[string]string{}
	for key, value := range object.Data {
		values[key] = string(value)
	}
	return values, nil
}

func unlessOptional(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil
	}
	return err
}

func isTrue(b *bool) bool { return b != nil && *b }
