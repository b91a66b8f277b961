package criconf

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"carob.dev/carob/internal/agent/downward"
)

// Var is one environment variable.
type Var struct{ Name, Value string }

// EnvInput is what a container's environment is made from.
type EnvInput struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	// ConfigMap and Secret read an object of the Pod's namespace; a missing one is the API's NotFound.
	ConfigMap func(name string) (*corev1.ConfigMap, error)
	Secret    func(name string) (*corev1.Secret, error)
	// Services are those whose addresses the container is told: see ServiceEnv.
	Services map[string]string
	Facts    downward.Facts
	// Folders are those of the Pod's volumes, by name, for variables that files have.
	Folders map[string]string
	// Allocatable is what the node can give to Pods.
	Allocatable corev1.ResourceList
}

// Env is the container's environment: envFrom, then env in its order, then the services'.
func Env(in EnvInput) ([]Var, error) {
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, from := range in.Container.EnvFrom {
		data, err := in.envFrom(from)
		if err != nil {
			return nil, err
		}
		for _, k := range slices.Sorted(maps.Keys(data)) {
			set(from.Prefix+k, data[k])
		}
	}
	for _, e := range in.Container.Env {
		value, ok, err := in.value(e, values)
		if err != nil {
			return nil, err
		}
		if ok {
			set(e.Name, value)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(in.Services)) {
		if _, ok := values[k]; !ok {
			set(k, in.Services[k])
		}
	}
	vars := make([]Var, 0, len(order))
	for _, name := range order {
		vars = append(vars, Var{name, values[name]})
	}
	return vars, nil
}

func (in EnvInput) envFrom(from corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := in.ConfigMap(from.ConfigMapRef.Name)
		if missing(err, from.ConfigMapRef.Optional) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return cm.Data, nil
	case from.SecretRef != nil:
		s, err := in.Secret(from.SecretRef.Name)
		if missing(err, from.SecretRef.Optional) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		data := map[string]string{}
		for k, v := range s.Data {
			data[k] = string(v)
		}
		return data, nil
	}
	return nil, nil
}

func missing(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

// value is that of one variable; ok is false when it is optional and there is none.
func (in EnvInput) value(e corev1.EnvVar, values map[string]string) (value string, ok bool, err error) {
	switch from := e.ValueFrom; {
	case e.Value != "" || from == nil:
		return Expand(e.Value, lookupIn(values, in.Services)), true, nil
	case from.FieldRef != nil:
		value, err = downward.Env(in.Pod, from.FieldRef.FieldPath, in.Facts)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = downward.Resource(from.ResourceFieldRef, in.Pod, in.Container.Name, in.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := in.ConfigMap(ref.Name)
		if missing(err, ref.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		value, ok := cm.Data[ref.Key]
		if !ok && (ref.Optional == nil || !*ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, in.Pod.Namespace, ref.Name)
		}
		return value, ok, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := in.Secret(ref.Name)
		if missing(err, ref.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		raw, ok := s.Data[ref.Key]
		if !ok && (ref.Optional == nil || !*ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, in.Pod.Namespace, ref.Name)
		}
		return string(raw), ok, nil
	}
	if from := e.ValueFrom; from.FileKeyRef != nil {
		return in.fromFile(from.FileKeyRef)
	}
	return "", false, fmt.Errorf("environment variable %s: this source of a value is not supported", e.Name)
}

// ServiceEnv tells a container of the Services of its namespace, if the Pod wants links, and of the API server always.
func ServiceEnv(services []*corev1.Service, namespace string, links bool) map[string]string {
	env := map[string]string{}
	byName := map[string]*corev1.Service{}
	for _, s := range services {
		api := s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes"
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		own := s.Namespace == namespace && links
		if own || api && byName[s.Name] == nil {
			byName[s.Name] = s
		}
	}
	for _, s := range byName {
		serviceVars(env, s)
	}
	return env
}

func serviceVars(env map[string]string, s *corev1.Service) {
	upper := func(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
	prefix := upper(s.Name)
	env[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
	env[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		proto := strings.ToLower(string(p.Protocol))
		if proto == "" {
			proto = "tcp"
		}
		address := proto + "://" + net.JoinHostPort(s.Spec.ClusterIP, port)
		if p.Name != "" {
			env[prefix+"_SERVICE_PORT_"+upper(p.Name)] = port
		}
		if i == 0 {
			env[prefix+"_PORT"] = address
		}
		key := prefix + "_PORT_" + port + "_" + strings.ToUpper(proto)
		env[key], env[key+"_PROTO"], env[key+"_PORT"], env[key+"_ADDR"] = address, proto, port, s.Spec.ClusterIP
	}
}
