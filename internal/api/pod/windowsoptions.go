package pod

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// What Windows takes for the name of a user and of a domain.
var (
	control      = regexp.MustCompile(`[[:cntrl:]]`)
	netBIOSName  = regexp.MustCompile(`^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$`)
	domainName   = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	dotsOrSpaces = regexp.MustCompile(`^[. ]+$`)
)

// validateWindowsOptions checks the options for Windows, which have no effect on a node of Linux. A Pod that says that it is for Linux may have none.
func validateWindowsOptions(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	forLinux := s.OS != nil && s.OS.Name == corev1.Linux
	check := func(at *field.Path, o *corev1.WindowsSecurityContextOptions) *bool {
		if o == nil {
			return nil
		}
		if forLinux {
			errs = append(errs, field.Forbidden(at, "windows options cannot be set for a linux pod"))
		}
		errs = append(errs, windowsOptions(at, o)...)
		return o.HostProcess
	}
	var ofPod *bool
	if sc := s.SecurityContext; sc != nil {
		ofPod = check(path.Child("securityContext", "windowsOptions"), sc.WindowsOptions)
	}
	all, host := 0, 0
	eachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		all++
		own := ofPod
		if sc := c.SecurityContext; sc != nil {
			at = at.Child("securityContext", "windowsOptions")
			if v := check(at, sc.WindowsOptions); v != nil {
				if ofPod != nil && *v != *ofPod {
					errs = append(errs, field.Invalid(at.Child("hostProcess"), *v,
						fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *ofPod)))
				}
				own = v
			}
		}
		if own != nil && *own {
			host++
		}
	})
	if host > 0 && host != all {
		errs = append(errs, field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if host > 0 && !s.HostNetwork {
		errs = append(errs, field.Invalid(path.Child("hostNetwork"), s.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

func windowsOptions(at *field.Path, o *corev1.WindowsSecurityContextOptions) field.ErrorList {
	var errs field.ErrorList
	if name := o.GMSACredentialSpecName; name != nil {
		errs = append(errs, rule.Messages(at.Child("gmsaCredentialSpecName"), *name, validation.IsDNS1123Subdomain(*name))...)
	}
	if spec := o.GMSACredentialSpec; spec != nil {
		switch at := at.Child("gmsaCredentialSpec"); {
		case *spec == "":
			errs = append(errs, field.Invalid(at, *spec, "gmsaCredentialSpec cannot be an empty string"))
		case len(*spec) > 64<<10:
			errs = append(errs, field.Invalid(at, *spec, "gmsaCredentialSpec size must be under 64 KiB"))
		}
	}
	if name := o.RunAsUserName; name != nil {
		for _, wrong := range windowsUser(*name) {
			errs = append(errs, field.Invalid(at.Child("runAsUserName"), *name, wrong))
		}
	}
	return errs
}

// windowsUser says what is wrong with a user's name, which may begin with a domain and a backslash.
func windowsUser(name string) []string {
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		domain, user = "", name
	}
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case control.MatchString(name):
		return []string{"runAsUserName cannot contain control characters"}
	case strings.Contains(user, `\`):
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	var wrong []string
	if len(domain) >= 256 {
		wrong = append(wrong, "runAsUserName's Domain length must be under 256 characters")
	}
	if hasDomain && !netBIOSName.MatchString(domain) && !domainName.MatchString(domain) {
		wrong = append(wrong, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	switch {
	case user == "":
		wrong = append(wrong, "runAsUserName's User cannot be empty")
	case len(user) > 104:
		wrong = append(wrong, "runAsUserName's User length must not be longer than 104 characters")
	}
	if dotsOrSpaces.MatchString(user) {
		wrong = append(wrong, "runAsUserName's User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`) {
		wrong = append(wrong, `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return wrong
}
