// SPDX-License-Identifier: Apache-2.0

// A libnvidia-ml.so.1 without a GPU: the documented functions that the binding
// uses, with answers that tell GPUs and fields apart.

#include "scenario.h"

typedef unsigned u32;
typedef unsigned long long u64;
typedef int ret;
enum { INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10, MISMATCH = 25 };

struct device { int gpu, instance; };
static struct device devices[GPUS][INSTANCES + 1]; // the GPU itself, then its instances
typedef struct device *dev;

#define ENTER(gpu) do { ret r = enter(__func__, gpu); if (r) return r; } while (0)
#define ENTER_DEVICE(d) do { if (!known(d)) return INVALID_ARGUMENT; ENTER((d)->gpu); } while (0)
#define ENTER_GPU(d) do { ENTER_DEVICE(d); if ((d)->instance >= 0) return NOT_SUPPORTED; } while (0)

static int known(dev d) { return d >= &devices[0][0] && d < &devices[GPUS][0] && d->gpu < now.gpus && d->instance < now.mig[d->gpu]; }

static ret say(char *to, u32 room, const char *text) {
	if (strlen(text) >= room) return TOO_SMALL;
	strcpy(to, text);
	return 0;
}

static int started;

ret nvmlInit_v2(void) {
	ENTER(-2);
	for (int g = 0; g < GPUS; g++)
		for (int i = 0; i <= INSTANCES; i++) devices[g][i] = (struct device){g, i - 1};
	started++;
	return 0;
}
ret nvmlShutdown(void) { ENTER(-2); return started-- > 0 ? 0 : 1; }
ret nvmlSystemGetDriverVersion(char *v, u32 n) { ENTER(-2); return say(v, n, "580.95.05"); }
ret nvmlDeviceGetCount_v2(u32 *n) { ENTER(-2); *n = now.gpus; return started ? 0 : 1; }
ret nvmlDeviceGetHandleByIndex_v2(u32 i, dev *d) { ENTER((int)i); if ((int)i >= now.gpus) return INVALID_ARGUMENT; *d = &devices[i][0]; return 0; }
ret nvmlDeviceGetUUID(dev d, char *s, u32 n) {
	ENTER_DEVICE(d);
	char text[80];
	if (d->instance < 0) snprintf(text, sizeof text, "GPU-%08d-0000-0000-0000-000000000000", d->gpu);
	else snprintf(text, sizeof text, "MIG-%08d-0000-0000-0000-%012d", d->gpu, d->instance);
	return say(s, n, text);
}
ret nvmlDeviceGetName(dev d, char *s, u32 n) { ENTER_DEVICE(d); return say(s, n, d->instance < 0 ? "NVIDIA H100 80GB HBM3" : "NVIDIA H100 80GB HBM3 MIG 1g.10gb"); }

struct pci { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; };
_Static_assert(sizeof(struct pci) == 68, "nvmlPciInfo_t");
ret nvmlDeviceGetMinorNumber(dev d, u32 *n) { ENTER_GPU(d); *n = d->gpu; return 0; }
ret nvmlDeviceGetPciInfo_v3(dev d, struct pci *p) {
	ENTER_GPU(d);
	*p = (struct pci){.domain = 0, .bus = 0x1b + d->gpu, .device = 0, .id = 0x233010de};
	snprintf(p->bus_id, sizeof p->bus_id, "%08X:%02X:00.0", 0, p->bus);
	return 0;
}
ret nvmlDeviceGetMigMode(dev d, u32 *is, u32 *will) { ENTER_GPU(d); *is = *will = now.mig[d->gpu] > 0; return 0; }
ret nvmlDeviceGetMaxMigDeviceCount(dev d, u32 *n) { ENTER_GPU(d); *n = INSTANCES; return 0; }
ret nvmlDeviceGetMigDeviceHandleByIndex(dev d, u32 i, dev *to) {
	ENTER_GPU(d);
	if ((int)i >= now.mig[d->gpu]) return NOT_FOUND;
	*to = &devices[d->gpu][i + 1];
	return 0;
}
ret nvmlDeviceGetGpuInstanceId(dev d, u32 *n) { ENTER_DEVICE(d); if (d->instance < 0) return NOT_SUPPORTED; *n = d->instance + 1; return 0; }
ret nvmlDeviceGetComputeInstanceId(dev d, u32 *n) { ENTER_DEVICE(d); if (d->instance < 0) return NOT_SUPPORTED; *n = 0; return 0; }

struct attributes { u32 sm, copy, dec, enc, jpeg, ofa, slices, compute; u64 mib; };
_Static_assert(sizeof(struct attributes) == 40, "nvmlDeviceAttributes_t");
ret nvmlDeviceGetAttributes_v2(dev d, struct attributes *a) { ENTER_DEVICE(d); *a = (struct attributes){.sm = 16, .slices = 1, .compute = 1, .mib = 9856}; return 0; }

struct utilization { u32 gpu, memory; };
ret nvmlDeviceGetUtilizationRates(dev d, struct utilization *u) { ENTER_GPU(d); if (now.mig[d->gpu]) return NOT_SUPPORTED; *u = (struct utilization){now.busy[d->gpu], 20 + d->gpu}; return 0; }
ret nvmlDeviceGetEncoderUtilization(dev d, u32 *u, u32 *us) { ENTER_GPU(d); *u = 30 + d->gpu; *us = 167000; return 0; }
ret nvmlDeviceGetDecoderUtilization(dev d, u32 *u, u32 *us) { ENTER_GPU(d); *u = 40 + d->gpu; *us = 167000; return 0; }

struct memory { u64 total, free, used; };
struct memory2 { u32 version; u64 total, reserved, free, used; };
_Static_assert(sizeof(struct memory2) == 40, "nvmlMemory_v2_t");
#define GIB (1ull << 30)
static u64 total_of(dev d) { return (d->instance < 0 ? 80 : 10) * GIB; }
static u64 used_of(dev d) { return (u64)now.memory[d->gpu] << 20; }
ret nvmlDeviceGetMemoryInfo(dev d, struct memory *m) { ENTER_DEVICE(d); u64 t = total_of(d), u = used_of(d); *m = (struct memory){t, t - u, u}; return 0; }
ret nvmlDeviceGetMemoryInfo_v2(dev d, struct memory2 *m) {
	ENTER_DEVICE(d);
	if (m->version != 0x2000028) return MISMATCH;
	u64 t = total_of(d), u = used_of(d);
	m->total = t, m->reserved = GIB / 2, m->used = u, m->free = t - u - GIB / 2;
	return 0;
}
ret nvmlDeviceGetPowerUsage(dev d, u32 *n) { ENTER_GPU(d); *n = 100000 + 1000 * d->gpu; return 0; }
ret nvmlDeviceGetEnforcedPowerLimit(dev d, u32 *n) { ENTER_GPU(d); *n = 700000; return 0; }
ret nvmlDeviceGetTemperature(dev d, u32 sensor, u32 *n) { ENTER_GPU(d); if (sensor) return INVALID_ARGUMENT; *n = 30 + d->gpu; return 0; }
struct temperature { u32 version, sensor; int value; };
ret nvmlDeviceGetTemperatureV(dev d, struct temperature *t) { ENTER_GPU(d); if (t->version != 0x100000c) return MISMATCH; t->value = 30 + d->gpu; return 0; }
ret nvmlDeviceGetClockInfo(dev d, u32 kind, u32 *n) { ENTER_GPU(d); *n = 1000 * (kind + 1) + d->gpu; return 0; }
ret nvmlDeviceGetCurrentClocksEventReasons(dev d, u64 *r) { ENTER_GPU(d); *r = 1ull << d->gpu; return 0; }
ret nvmlDeviceGetCurrentClocksThrottleReasons(dev d, u64 *r) { ENTER_GPU(d); *r = 1ull << d->gpu; return 0; }
ret nvmlDeviceGetPcieThroughput(dev d, u32 way, u32 *n) { ENTER_GPU(d); *n = 100 * (way + 1) + d->gpu; return 0; }
ret nvmlDeviceGetNvLinkState(dev d, u32 link, u32 *up) { ENTER_GPU(d); if ((int)link >= now.links) return INVALID_ARGUMENT; *up = link != 3; return 0; }
ret nvmlDeviceGetComputeMode(dev d, u32 *n) { ENTER_GPU(d); *n = d->gpu == 1 ? 3 : 0; return 0; }

struct fabric { u32 version; unsigned char cluster[16]; ret status; u32 clique; unsigned char state; u32 health; };
_Static_assert(sizeof(struct fabric) == 36, "nvmlGpuFabricInfo_v2_t");
ret nvmlDeviceGetGpuFabricInfoV(dev d, struct fabric *f) { ENTER_GPU(d); if (f->version != 0x2000024) return MISMATCH; f->state = 3; return 0; }

struct field { u32 id, scope; long long at, took; u32 type; ret result; union { double d; u32 u; u64 l; } value; };
_Static_assert(sizeof(struct field) == 40, "nvmlFieldValue_t");
ret nvmlDeviceGetFieldValues(dev d, int n, struct field *f) {
	ENTER_GPU(d);
	for (; n-- > 0; f++) {
		f->result = 0;
		for (int i = 0; i < now.fields; i++)
			if (now.field[i].id == f->id) f->result = now.field[i].code;
		f->type = f->id == 82 ? 1 : 3;
		f->value.l = f->id == 82 ? 50ull + d->gpu : f->id * 1000ull + f->scope * 10 + d->gpu;
	}
	return 0;
}

struct process_info { u32 pid; u64 memory; u32 gi, ci; };
_Static_assert(sizeof(struct process_info) == 24, "nvmlProcessInfo_v2_t");
static ret list(dev d, char kind, u32 *n, void *to) {
	u32 room = *n, have = 0, stride = now.wide ? 32 : 24;
	for (int i = 0; i < now.processes; i++) {
		struct process *p = &now.process[i];
		if (p->gpu != d->gpu || p->kind != kind || (d->instance >= 0 && p->instance != d->instance + 1)) continue;
		if (have < room) {
			struct process_info out = {p->pid, p->mib ? p->mib << 20 : ~0ull, p->instance < 0 ? ~0u : (u32)p->instance, p->instance < 0 ? ~0u : 0};
			memset((char *)to + have * stride, 0xee, stride);
			memcpy((char *)to + have * stride, &out, sizeof out);
		}
		have++;
	}
	*n = have;
	return have > room ? TOO_SMALL : 0;
}
ret nvmlDeviceGetComputeRunningProcesses_v3(dev d, u32 *n, void *to) { ENTER_DEVICE(d); return list(d, 'c', n, to); }
ret nvmlDeviceGetGraphicsRunningProcesses_v3(dev d, u32 *n, void *to) { ENTER_DEVICE(d); return list(d, 'g', n, to); }
ret nvmlDeviceGetMPSComputeRunningProcesses_v3(dev d, u32 *n, void *to) { ENTER_DEVICE(d); return list(d, 'm', n, to); }
ret nvmlDeviceGetComputeRunningProcesses_v2(dev d, u32 *n, void *to) { ENTER_DEVICE(d); return list(d, 'c', n, to); }
ret nvmlDeviceGetConfComputeMemSizeInfo(dev d, void *to) { (void)d, (void)to; return NOT_SUPPORTED; }
ret nvmlDeviceGetRunningProcessDetailList(dev d, void *to) { (void)d, (void)to; return NOT_SUPPORTED; }

struct use_info { u32 pid; u64 at; u32 sm, memory, enc, dec; };
_Static_assert(sizeof(struct use_info) == 32, "nvmlProcessUtilizationSample_t");
ret nvmlDeviceGetProcessUtilization(dev d, struct use_info *to, u32 *n, u64 since) {
	ENTER_GPU(d);
	u32 room = *n, have = 0;
	for (int i = 0; i < now.uses; i++) {
		if (now.use[i].gpu != d->gpu) continue;
		if (have < room) to[have] = (struct use_info){now.use[i].pid, since + 1, now.use[i].percent, 1, 2, 3};
		have++;
	}
	*n = have;
	return !have ? NOT_FOUND : have > room ? TOO_SMALL : 0;
}

struct support { u32 version, yes; };
struct metric { u32 id; ret result; double value; char *names[3]; };
struct sample { dev of; int instance, used; };
struct metrics { u32 version, n; struct sample *a, *b; struct metric metric[]; };
_Static_assert(sizeof(struct metric) == 40 && sizeof(struct metrics) == 24, "nvmlGpmMetricsGet_t");
static int samples;
ret nvmlGpmQueryDeviceSupport(dev d, struct support *s) { ENTER_GPU(d); if (s->version != 1) return MISMATCH; s->yes = now.gpm; return 0; }
ret nvmlGpmSampleAlloc(struct sample **s) { ENTER(-2); *s = calloc(1, sizeof **s); samples++; return 0; }
ret nvmlGpmSampleFree(struct sample *s) { ENTER(-2); free(s); samples--; return 0; }
ret nvmlGpmSampleGet(dev d, struct sample *s) { ENTER_DEVICE(d); *s = (struct sample){d, -1, 1}; return 0; }
ret nvmlGpmMigSampleGet(dev d, u32 gi, struct sample *s) { ENTER_GPU(d); if (!gi || (int)gi > now.mig[d->gpu]) return INVALID_ARGUMENT; *s = (struct sample){d, gi, 1}; return 0; }
ret nvmlGpmMetricsGet(struct metrics *m) {
	ENTER(-2);
	if (m->version != 1 || m->a == m->b || !m->a->used || !m->b->used || m->a->of != m->b->of) return INVALID_ARGUMENT;
	for (u32 i = 0; i < m->n; i++) {
		m->metric[i].result = 0;
		u32 id = m->metric[i].id;
		int told = now.activity[m->a->of->gpu][id == 2 ? 0 : id == 5 ? 1 : 2];
		if (told && (id == 2 || id == 5 || id == 10)) {
			m->metric[i].value = told - 1;
			continue;
		}
		m->metric[i].value = id + m->a->of->gpu + (m->a->instance > 0 ? 50 + m->a->instance : 0);
	}
	return 0;
}

struct event { dev of; u64 kind, data; u32 gi, ci; };
_Static_assert(sizeof(struct event) == 32, "nvmlEventData_t");
static u64 heard[GPUS];
ret nvmlEventSetCreate(void **s) { ENTER(-2); *s = heard; memset(heard, 0, sizeof heard); return 0; }
ret nvmlEventSetFree(void *s) { ENTER(-2); return s == heard ? 0 : INVALID_ARGUMENT; }
ret nvmlDeviceGetSupportedEventTypes(dev d, u64 *t) { ENTER_GPU(d); *t = 0x1ff; return 0; }
ret nvmlDeviceRegisterEvents(dev d, u64 t, void *s) { ENTER_GPU(d); if (s != heard) return INVALID_ARGUMENT; heard[d->gpu] |= t; return 0; }
ret nvmlEventSetWait_v2(void *s, struct event *e, u32 ms) {
	ENTER(-2);
	if (s != heard) return INVALID_ARGUMENT;
	for (int i = 0; i < now.events; i++) {
		struct told *t = &now.event[i];
		if (t->seq <= told_seq) continue;
		told_seq = t->seq;
		if (t->gpu < 0) { *e = (struct event){&devices[0][0], 0x100, 0, ~0u, ~0u}; return 0; }
		if (!(heard[t->gpu] & 8)) continue;
		*e = (struct event){&devices[t->gpu][0], 8, t->code, t->instance < 0 ? ~0u : (u32)t->instance, t->instance < 0 ? ~0u : 0};
		return 0;
	}
	usleep(ms * 1000);
	return TIMEOUT;
}
