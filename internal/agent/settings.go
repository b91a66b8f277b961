package agent

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// settings are the node's in the form of kubelet's configuration, for those who ask at /configz. Fields without an equal here are left out.
func (c *Config) settings() kubeletconfig.KubeletConfiguration {
	yes, no := true, false
	driver := "cgroupfs"
	if c.CgroupNames.Systemd {
		driver = "systemd"
	}
	high, low := int32(c.ImageGC.HighPercent), int32(c.ImageGC.LowPercent)
	files := int32(c.ContainerLogs.MaxFiles)
	s := kubeletconfig.KubeletConfiguration{
		EnableServer: &yes, Port: int32(c.Port), Authentication: kubeletconfig.KubeletAuthentication{Anonymous: kubeletconfig.KubeletAnonymousAuthentication{Enabled: &no},
			Webhook: kubeletconfig.KubeletWebhookAuthentication{Enabled: &yes, CacheTTL: metav1.Duration{Duration: 2 * time.Minute}}},
		Authorization:               kubeletconfig.KubeletAuthorization{Mode: kubeletconfig.KubeletAuthorizationModeWebhook},
		ClusterDomain:               c.ClusterDomain,
		ClusterDNS:                  c.ClusterDNS,
		NodeStatusUpdateFrequency:   metav1.Duration{Duration: 10 * time.Second},
		NodeStatusReportFrequency:   metav1.Duration{Duration: 5 * time.Minute},
		NodeLeaseDurationSeconds:    40,
		ImageMinimumGCAge:           metav1.Duration{Duration: c.ImageGC.MinAge},
		ImageMaximumGCAge:           metav1.Duration{Duration: c.ImageGC.MaxAge},
		ImageGCHighThresholdPercent: &high,
		ImageGCLowThresholdPercent:  &low,
		CgroupDriver:                driver,
		CgroupRoot:                  c.CgroupNames.Level(corev1.PodQOSGuaranteed),
		MaxPods:                     int32(c.MaxPods),
		ContainerLogMaxFiles:        &files,
		AllowedUnsafeSysctls:        c.Security.UnsafeSysctls,
	}
	if c.MaxRestartPeriod > 0 {
		s.CrashLoopBackOff = kubeletconfig.CrashLoopBackOffConfig{MaxContainerRestartPeriod: &metav1.Duration{Duration: c.MaxRestartPeriod}}
	}
	s.ContainerLogMaxSize = resource.NewQuantity(c.ContainerLogs.MaxSize, resource.BinarySI).String()
	if c.PodCIDR.IsValid() {
		s.PodCIDR = c.PodCIDR.String()
	}
	return s
}
