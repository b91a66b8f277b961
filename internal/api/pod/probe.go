package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// validateHooksAndProbes checks what ordinary containers and sidecars have. grace is the Pod's termination grace period, in seconds.
func validateHooksAndProbes(at *field.Path, c *corev1.Container, grace *int64, os *corev1.PodOS) field.ErrorList {
	var errs field.ErrorList
	if l := c.Lifecycle; l != nil {
		if l.PostStart != nil {
			errs = append(errs, validateHook(at.Child("lifecycle", "postStart"), l.PostStart, grace)...)
		}
		if l.PreStop != nil {
			errs = append(errs, validateHook(at.Child("lifecycle", "preStop"), l.PreStop, grace)...)
		}
		if l.StopSignal != nil {
			errs = append(errs, validateStopSignal(at.Child("lifecycle", "stopSignal"), *l.StopSignal, os)...)
		}
	}
	errs = append(errs, validateProbe(at.Child("livenessProbe"), c.LivenessProbe)...)
	errs = append(errs, oneSuccess(at.Child("livenessProbe"), c.LivenessProbe)...)
	errs = append(errs, validateProbe(at.Child("readinessProbe"), c.ReadinessProbe)...)
	if p := c.ReadinessProbe; p != nil && p.TerminationGracePeriodSeconds != nil {
		at := at.Child("readinessProbe", "terminationGracePeriodSeconds")
		errs = append(errs, field.Invalid(at, p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
	}
	errs = append(errs, validateProbe(at.Child("startupProbe"), c.StartupProbe)...)
	return append(errs, oneSuccess(at.Child("startupProbe"), c.StartupProbe)...)
}

// stopSignals are those that a container may be stopped with, sorted.
var stopSignals = []corev1.Signal{corev1.SIGABRT, corev1.SIGALRM, corev1.SIGBUS, corev1.SIGCHLD, corev1.SIGCLD, corev1.SIGCONT, corev1.SIGFPE,
	corev1.SIGHUP, corev1.SIGILL, corev1.SIGINT, corev1.SIGIO, corev1.SIGIOT, corev1.SIGKILL, corev1.SIGPIPE, corev1.SIGPOLL, corev1.SIGPROF,
	corev1.SIGPWR, corev1.SIGQUIT, corev1.SIGRTMAX, corev1.SIGRTMAXMINUS1, corev1.SIGRTMAXMINUS10, corev1.SIGRTMAXMINUS11, corev1.SIGRTMAXMINUS12,
	corev1.SIGRTMAXMINUS13, corev1.SIGRTMAXMINUS14, corev1.SIGRTMAXMINUS2, corev1.SIGRTMAXMINUS3, corev1.SIGRTMAXMINUS4, corev1.SIGRTMAXMINUS5,
	corev1.SIGRTMAXMINUS6, corev1.SIGRTMAXMINUS7, corev1.SIGRTMAXMINUS8, corev1.SIGRTMAXMINUS9, corev1.SIGRTMIN, corev1.SIGRTMINPLUS1,
	corev1.SIGRTMINPLUS10, corev1.SIGRTMINPLUS11, corev1.SIGRTMINPLUS12, corev1.SIGRTMINPLUS13, corev1.SIGRTMINPLUS14, corev1.SIGRTMINPLUS15,
	corev1.SIGRTMINPLUS2, corev1.SIGRTMINPLUS3, corev1.SIGRTMINPLUS4, corev1.SIGRTMINPLUS5, corev1.SIGRTMINPLUS6, corev1.SIGRTMINPLUS7,
	corev1.SIGRTMINPLUS8, corev1.SIGRTMINPLUS9, corev1.SIGSEGV, corev1.SIGSTKFLT, corev1.SIGSTOP, corev1.SIGSYS, corev1.SIGTERM, corev1.SIGTRAP,
	corev1.SIGTSTP, corev1.SIGTTIN, corev1.SIGTTOU, corev1.SIGURG, corev1.SIGUSR1, corev1.SIGUSR2, corev1.SIGVTALRM, corev1.SIGWINCH,
	corev1.SIGXCPU, corev1.SIGXFSZ}

func validateStopSignal(at *field.Path, s corev1.Signal, os *corev1.PodOS) field.ErrorList {
	if os == nil {
		return field.ErrorList{field.Forbidden(at, "may not be set for containers with empty `spec.os.name`")}
	}
	if os.Name == corev1.Windows {
		return rule.Known(at, s, corev1.SIGKILL, corev1.SIGTERM)
	}
	return rule.Known(at, s, stopSignals...)
}

func oneSuccess(at *field.Path, p *corev1.Probe) field.ErrorList {
	if p == nil || p.SuccessThreshold == 1 {
		return nil
	}
	return field.ErrorList{field.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1")}
}

func validateProbe(at *field.Path, p *corev1.Probe) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := validateHandler(at, handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, nil)
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds},
		{"timeoutSeconds", p.TimeoutSeconds},
		{"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold},
		{"failureThreshold", p.FailureThreshold},
	} {
		errs = append(errs, rule.NonNegative(at.Child(n.name), int64(n.value))...)
	}
	if g := p.TerminationGracePeriodSeconds; g != nil && *g <= 0 {
		errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *g, "must be greater than 0"))
	}
	return errs
}

func validateHook(at *field.Path, h *corev1.LifecycleHandler, grace *int64) field.ErrorList {
	return validateHandler(at, handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, grace)
}

// handler is the one action of a probe or a hook.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func validateHandler(at *field.Path, h handler, grace *int64) field.ErrorList {
	var errs field.ErrorList
	seen := false
	action := func(name string, set bool, check func(at *field.Path) field.ErrorList) {
		switch {
		case !set:
		case seen:
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 handler type"))
		default:
			seen = true
			errs = append(errs, check(at.Child(name))...)
		}
	}
	action("exec", h.exec != nil, func(at *field.Path) field.ErrorList {
		if len(h.exec.Command) == 0 {
			return field.ErrorList{field.Required(at.Child("command"), "")}
		}
		return nil
	})
	action("httpGet", h.http != nil, func(at *field.Path) field.ErrorList { return validateHTTPGet(at, h.http) })
	action("tcpSocket", h.tcp != nil, func(at *field.Path) field.ErrorList { return rule.PortOrName(at.Child("port"), h.tcp.Port) })
	action("grpc", h.grpc != nil, func(at *field.Path) field.ErrorList { return rule.Port(at.Child("port"), h.grpc.Port) })
	action("sleep", h.sleep != nil, func(at *field.Path) field.ErrorList {
		if grace == nil || h.sleep.Seconds >= 0 && h.sleep.Seconds <= *grace {
			return nil
		}
		return field.ErrorList{field.Invalid(at, h.sleep.Seconds,
			fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))}
	})
	if !seen {
		errs = append(errs, field.Required(at, "must specify a handler type"))
	}
	return errs
}

func validateHTTPGet(at *field.Path, a *corev1.HTTPGetAction) field.ErrorList {
	errs := required(at.Child("path"), a.Path)
	errs = append(errs, rule.PortOrName(at.Child("port"), a.Port)...)
	if a.Scheme != corev1.URISchemeHTTP && a.Scheme != corev1.URISchemeHTTPS {
		errs = append(errs, field.NotSupported(at.Child("scheme"), a.Scheme, []corev1.URIScheme{corev1.URISchemeHTTP, corev1.URISchemeHTTPS}))
	}
	for _, h := range a.HTTPHeaders {
		errs = append(errs, rule.Messages(at.Child("httpHeaders"), h.Name, validation.IsHTTPHeaderName(h.Name))...)
	}
	return errs
}
