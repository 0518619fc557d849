package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Volumes are the volumes of one pod, in a folder of the host. It is not safe for concurrent use.
type Volumes struct {
	resolver *Resolver
	folder   string
	// written is what lies in each volume's folder, so that nothing is written twice.
	written map[string]files
	tokens  map[string]*token
}

// files are the files of a volume by their path in it.
type files map[string]file

type file struct {
	content string
	mode    fs.FileMode
}

// NewVolumes prepares the volumes of a pod below a folder.
func (r *Resolver) NewVolumes(folder string) *Volumes {
	return &Volumes{resolver: r, folder: folder, written: map[string]files{}, tokens: map[string]*token{}}
}

// Write brings the files of every volume up to date. Containers that have them mounted see all changes of a volume at once.
func (v *Volumes) Write(ctx context.Context, pod *corev1.Pod, facts Facts) error {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if err := v.write(ctx, pod, facts, volume); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

func (v *Volumes) write(ctx context.Context, pod *corev1.Pod, facts Facts, volume *corev1.Volume) error {
	folder := v.path(volume.Name)
	switch {
	case volume.HostPath != nil:
		return checkHostPath(volume.HostPath)
	case volume.EmptyDir != nil:
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if group := fsGroup(pod); group >= 0 {
			if err := os.Chown(folder, 0, group); err != nil {
				return err
			}
		}
		return os.Chmod(folder, 0o777|fs.ModeSetgid)
	}
	content, err := v.files(ctx, pod, facts, volume)
	if err != nil {
		return err
	}
	if same(v.written[volume.Name], content) {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := replace(folder, content, fsGroup(pod)); err != nil {
		return err
	}
	v.written[volume.Name] = content
	return nil
}

func (v *Volumes) path(name string) string { return filepath.Join(v.folder, name) }

// fsGroup is the group that a pod's volumes belong to, -1 for none.
func fsGroup(pod *corev1.Pod) int {
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		return int(*sc.FSGroup)
	}
	return -1
}

func same(a, b files) bool {
	if a == nil || len(a) != len(b) {
		return false
	}
	for name, file := range b {
		if a[name] != file {
			return false
		}
	}
	return true
}

func (v *Volumes) files(ctx context.Context, pod *corev1.Pod, facts Facts, volume *corev1.Volume) (files, error) {
	c := collector{Volumes: v, pod: pod, facts: facts, volume: volume.Name, into: files{}}
	var err error
	switch {
	case volume.ConfigMap != nil:
		s := volume.ConfigMap
		c.mode = mode(s.DefaultMode)
		err = c.configMap(ctx, s.Name, s.Items, s.Optional)
	case volume.Secret != nil:
		s := volume.Secret
		c.mode = mode(s.DefaultMode)
		err = c.secret(ctx, s.SecretName, s.Items, s.Optional)
	case volume.DownwardAPI != nil:
		c.mode = mode(volume.DownwardAPI.DefaultMode)
		err = c.downward(volume.DownwardAPI.Items)
	case volume.Projected != nil:
		c.mode = mode(volume.Projected.DefaultMode)
		for i := range volume.Projected.Sources {
			if err = c.projected(ctx, &volume.Projected.Sources[i]); err != nil {
				break
			}
		}
	default:
		err = errors.New("its kind is none of configMap, secret, downwardAPI, projected, emptyDir and hostPath")
	}
	return c.into, err
}

func mode(m *int32) fs.FileMode {
	if m == nil {
		return 0o644
	}
	return fs.FileMode(*m) & fs.ModePerm
}

// checkHostPath makes what may be made and says what is missing.
func checkHostPath(source *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if source.Type != nil {
		kind = *source.Type
	}
	switch kind {
	case corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(source.Path, 0o755)
	case corev1.HostPathFileOrCreate:
		file, err := os.OpenFile(source.Path, os.O_CREATE, 0o644)
		if err == nil {
			file.Close()
		}
		return err
	}
	_, err := os.Stat(source.Path)
	return err
}

// Source returns where a mounted volume lies on the host.
func (v *Volumes) Source(pod *corev1.Pod, mount *corev1.VolumeMount, variables map[string]string) (string, error) {
	source := v.path(mount.Name)
	ours := false
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == mount.Name && volume.HostPath != nil {
			source = volume.HostPath.Path
		}
		if volume.Name == mount.Name && volume.EmptyDir != nil {
			ours = true
		}
	}
	sub := mount.SubPath
	if mount.SubPathExpr != "" {
		sub = Expand(mount.SubPathExpr, variables)
	}
	if sub == "" {
		return source, nil
	}
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("volume %s: subPath %q leads out of it", mount.Name, sub)
	}
	source = filepath.Join(source, sub)
	if ours {
		return source, os.MkdirAll(source, 0o777)
	}
	return source, nil
}

// collector gathers the files of one volume.
type collector struct {
	*Volumes
	pod    *corev1.Pod
	facts  Facts
	volume string
	mode   fs.FileMode
	into   files
}

func (c *collector) projected(ctx context.Context, source *corev1.VolumeProjection) error {
	switch {
	case source.ConfigMap != nil:
		return c.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional)
	case source.Secret != nil:
		return c.secret(ctx, source.Secret.Name, source.Secret.Items, source.Secret.Optional)
	case source.DownwardAPI != nil:
		return c.downward(source.DownwardAPI.Items)
	case source.ServiceAccountToken != nil:
		return c.token(ctx, source.ServiceAccountToken)
	case source.ClusterTrustBundle != nil:
		return c.trustBundle(ctx, source.ClusterTrustBundle)
	}
	return errors.New("a projected source is of a kind that is not supported")
}

func (c *collector) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	values, err := c.resolver.configMap(ctx, c.pod.Namespace, name, optional)
	if err != nil {
		return err
	}
	return c.pick(values, items, "ConfigMap "+name, optional)
}

func (c *collector) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	values, err := c.resolver.secret(ctx, c.pod.Namespace, name, optional)
	if err != nil {
		return err
	}
	return c.pick(values, items, "Secret "+name, optional)
}

// pick puts values into the volume: all of them, or those that are listed under the paths given.
func (c *collector) pick(values map[string]string, items []corev1.KeyToPath, object string, optional *bool) error {
	if len(items) == 0 {
		for key, value := range values {
			c.into[key] = file{value, c.mode}
		}
		return nil
	}
	for _, item := range items {
		value, ok := values[item.Key]
		if !ok && isTrue(optional) {
			continue
		}
		if !ok {
			return fmt.Errorf("%s has no key %s", object, item.Key)
		}
		if err := c.put(item.Path, value, item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) put(path, value string, own *int32) error {
	if !filepath.IsLocal(path) || strings.HasPrefix(path, "..") {
		return fmt.Errorf("path %q leads out of it", path)
	}
	m := c.mode
	if own != nil {
		m = mode(own)
	}
	c.into[filepath.Clean(path)] = file{value, m}
	return nil
}

func (c *collector) downward(items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		value, err := c.downwardValue(&item)
		if err == nil {
			err = c.put(item.Path, value, item.Mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) downwardValue(item *corev1.DownwardAPIVolumeFile) (string, error) {
	if item.FieldRef != nil {
		return field(c.pod, c.facts, item.FieldRef.FieldPath)
	}
	if ref := item.ResourceFieldRef; ref != nil {
		for i := range c.pod.Spec.Containers {
			if c.pod.Spec.Containers[i].Name == ref.ContainerName {
				return resourceField(&c.pod.Spec.Containers[i], c.facts, ref)
			}
		}
		return "", fmt.Errorf("file %s: the pod has no container %q", item.Path, ref.ContainerName)
	}
	return "", fmt.Errorf("file %s refers to nothing", item.Path)
}

// token is a service account's token that was asked for.
type token struct {
	text  string
	renew time.Time
}
