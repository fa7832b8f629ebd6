// The kernels around a net as a library of the CPU's: the C functions of edgeseg_plugin.h, each done when it returns.
// What calls them through that header is tested with it where there is no GPU.
#include "pictures.h"

namespace {

struct EachItem {
    template <class Body, class Index>
    int operator()(const Body& body, Index items) const
    {
        for (Index i = 0; i < items; ++i) body(i);
        return 0;
    }
};

}  // namespace

extern "C" {

__attribute__((weak)) int edgeseg_plugin_version(void) { return EDGESEG_PLUGIN_ABI; }  // plugins.cpp has one, too

int edgeseg_preprocess(const edgeseg_frame* frame, const edgeseg_input* input, void* out, void*)
{
    return edgeseg::preprocess(frame, input, out, EachItem{});
}

int edgeseg_overlay_scores(const void* scores, int32_t is_half, int32_t classes, int32_t height, int32_t width,
                           const edgeseg_overlay* overlay, void*)
{
    return edgeseg::overlay_scores(scores, is_half != 0, classes, height, width, overlay, EachItem{});
}

int edgeseg_overlay_labels(const void* labels, int32_t height, int32_t width, const edgeseg_overlay* overlay, void*)
{
    return edgeseg::overlay_labels(labels, height, width, overlay, EachItem{});
}

}  // extern "C"
