# Carob: `make help` lists all there is to learn.
export CGO_ENABLED := 0
# The same flags for every go command, or packages are compiled twice.
export GOFLAGS := -trimpath -buildvcs=false
VERSION ?= 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X carob.dev/carob/internal/version.version=$(VERSION) -X carob.dev/carob/internal/version.commit=$(COMMIT)
SHIM    := internal/runtime/shimbin/bin/carob-shim

.PHONY: help
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: shim overlay ## build bin/carob, with the shim inside
	go build $(OVERLAY) -ldflags '$(LDFLAGS)' -o bin/carob ./cmd/carob

# A quarter less to load and to keep: see internal/build/overlay. OVERLAY= builds without it.
OVERLAY ?= -overlay build/_overlay/overlay.json

.PHONY: overlay
overlay:
	@go run ./internal/build/overlay -out build/_overlay -goroot "$$(go env GOROOT)"

.PHONY: shim
shim:
	go build -ldflags '-s -w' -o $(SHIM) ./cmd/carob-shim

.PHONY: demo
demo: ## start a cluster, run the examples, look at them (ONCE=1: check, clean up, exit)
	./test/demo/demo.sh

.PHONY: deps
deps: ## install what the tests and the demo need (Debian packages)
	./test/deps.sh

.PHONY: test-images
test-images: ## build build/images/{busybox,debian,nginx}.tar from Debian packages
	go run ./test/images/build -out build/images

.PHONY: lint
lint: shim ## format, vet, static analysis
	@fmt=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$fmt" || { echo "not gofmt-ed:"; echo "$$fmt"; exit 1; }
	go vet ./...
	go vet -tags e2e ./test/e2e
	go vet -tags crash ./test/crash
	go tool staticcheck ./...

.PHONY: check
check: lint ## lint, and the quick unit tests
	go test -short ./...

.PHONY: unit
unit: shim ## every package's tests, on real processes where they need them (root)
	go test ./...

.PHONY: etcd
etcd: ## the storage suites on a real etcd
	./test/etcd/run.sh

.PHONY: runtimes
runtimes: shim ## the runtime's tests on runc, the distribution's and a recent one (root)
	./test/runtimes/run.sh

.PHONY: e2e
e2e: build test-images ## real Pods under stock kubectl, inside a test host (root)
	./test/e2e/run.sh

.PHONY: test
test: deps lint unit etcd e2e ## everything CI runs

.PHONY: critest
critest: build test-images ## the CRI's validation suite on the runtime, with crun and with runc (root)
	./test/critest/run.sh

.PHONY: critest-vm
critest-vm: build test-images ## the same with crun on cgroup v2 and AppArmor, in qemu (root)
	./test/critest/build.sh
	go run ./test/vm -carob bin/carob -images build/images -modes critest -timeout 40m

# SKIP=REGEXP, PROCS=N, SPECS=nodeconformance; ADD=1 adds what passes to test/conformance/passing.txt
.PHONY: conformance
conformance: build ## upstream's e2e suite, or FOCUS='sig-node|sig-storage' of it (root; the first build takes minutes)
	./test/conformance/run.sh -focus '$(FOCUS)' -skip '$(SKIP)' $(if $(PROCS),-procs $(PROCS)) $(if $(SPECS),-specs $(SPECS)) $(if $(ADD),-add)

# What the machine itself cannot pass for want of CAP_SYS_RESOURCE or of dummy links.
conformance-vm: FOCUS ?= PrivilegedPod|PLR guaranteed qos.* resizing (cpu|mem|only)
.PHONY: conformance-vm
conformance-vm: build test-images ## specs of the same suite for a node's conformance, on cgroup v2 in qemu, by FOCUS (root)
	./test/conformance/build.sh
	go run ./test/vm -carob bin/carob -images build/images -modes conformance -focus '$(FOCUS)' -memory 4G -timeout 60m \
	  -conformance-source "$$(cd test/conformance/tools && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images"

.PHONY: csi
csi: build test-images ## a storage driver with Kubernetes' own provisioner, attacher and resizer (root; the first build takes minutes)
	./test/csi/build.sh
	CSI_BINARIES=$(CURDIR)/build/csi TAGS=e2e,csi ./test/e2e/run.sh -run '^TestCSI'

.PHONY: minio
minio: build test-images ## minio as a Pod with its data on a hostPath (root; the first build takes three minutes)
	./test/minio/build.sh
	MINIO_BINARY=$(CURDIR)/build/minio/minio TAGS=e2e,minio ./test/e2e/run.sh -run '^TestMinio$$'

.PHONY: containerd
containerd: build test-images ## the agent on containerd and on `carob runtime`, by --runtime-endpoint (root)
	./test/containerd/run.sh

.PHONY: vm
vm: build test-images ## a Carob on a machine with cgroup v2 alone, in qemu: without systemd, with it, with NFS (root)
	go run ./test/vm -carob bin/carob -images build/images

.PHONY: bench
bench: build test-images ## speed and weight beside the kernel floor, with their budgets
	./test/bench/run.sh

.PHONY: bench-runtime
bench-runtime: build test-images ## the Pod runtime alone, beside the kernel floor and the OCI runtime: where a Pod's time goes (root)
	ONLY=floor,crun,runtime ./test/bench/run.sh -runs 30

ROUNDS ?= 500
.PHONY: crash
crash: build test-images ## die at every point of a Pod's life, and ROUNDS times (500) at random; nothing may be lost or left (root)
	go test -v -tags crash -timeout 120m ./test/crash -rounds $(ROUNDS)

.PHONY: density
density: build test-images ## 500 Pods on one node, in the runtime and over the API: created, listed, deleted; time and memory (root)
	ONLY=runtime500,density ./test/bench/run.sh

.PHONY: generate
generate: ## make the generated code anew
	go generate ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build internal/runtime/shimbin/bin/carob-shim
