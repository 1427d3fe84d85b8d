window.plots = {
  "config": {
    "aria": false,
    "background": "transparent",
    "font": "$font",
    "axis": { "labelColor": "$soft", "titleColor": "$ink", "gridColor": "$line", "domainColor": "$soft", "tickColor": "$line", "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": 500, "labelOverlap": true, "labelSeparation": 5 },
    "axisX": { "grid": false },
    "axisY": { "titlePadding": 10 },
    "lineBreak": "\n",
    "legend": { "labelColor": "$ink", "titleColor": "$ink", "labelFontSize": 12.5, "labelLimit": 300, "symbolLimit": 40, "orient": "top", "title": null, "columns": "$columns", "columnPadding": 14, "offset": 8 },
    "text": { "color": "$soft", "fontSize": 12 },
    "title": { "color": "$ink", "fontSize": 14, "fontWeight": 600, "anchor": "start", "frame": "group", "offset": 8 },
    "view": { "stroke": null }
  },

  "curve": { "title": "$heading", "vconcat": "$panels", "spacing": 14, "resolve": { "scale": { "x": "shared" } }, "config": "$config" },
  "lds_panel": {
    "width": "$width", "height": "$height",
    "layer": [
      { "data": { "values": [{ "lds": 0 }] }, "mark": { "type": "rule", "color": "$soft", "opacity": 0.6 }, "encoding": { "y": "$lds" } },
      { "data": { "values": "$ceiling" }, "mark": { "type": "rule", "strokeDash": [5, 4], "color": "$soft" }, "encoding": { "y": "$lds" } },
      { "data": { "values": "$ceiling" }, "mark": "$far_text", "encoding": { "y": "$lds", "text": { "field": "text", "type": "nominal" } } },
      "$guide",
      { "data": { "values": "$points" }, "transform": ["$scored"], "mark": { "type": "area", "color": "$accent", "opacity": 0.17 }, "encoding": { "x": "$x", "y": { "field": "low", "type": "quantitative", "title": "LDS" }, "y2": { "field": "high" } } },
      { "data": { "values": "$points" }, "transform": ["$scored"], "mark": { "type": "line", "color": "$accent", "strokeWidth": 2 }, "encoding": { "x": "$x", "y": "$lds" } },
      { "data": { "values": "$points" }, "transform": ["$scored"], "mark": { "type": "point", "filled": true, "size": "$dot", "color": "$accent", "opacity": 1 }, "encoding": { "x": "$x", "y": "$lds", "tooltip": "$tooltip" } },
      { "data": { "values": "$points" }, "transform": [{ "filter": "!isValid(datum.lds)" }], "mark": { "type": "point", "shape": "cross", "angle": 45, "size": 80, "color": "$bad", "filled": true }, "encoding": { "x": "$x", "y": { "value": { "expr": "height - 8" } }, "tooltip": [{ "field": "label", "type": "nominal", "title": "$name" }, { "field": "reason", "type": "nominal" }] } },
      { "data": { "values": "$marks" }, "transform": ["$scored"], "mark": { "type": "point", "strokeWidth": 2.2, "opacity": 1 }, "encoding": { "x": "$x", "y": "$lds", "tooltip": "$mark_tooltip", "shape": "$mark_shape", "size": "$mark_size", "stroke": "$mark_stroke", "fill": "$mark_fill" } },
      { "data": { "values": "$marks" }, "transform": [{ "filter": "!isValid(datum.lds)" }], "mark": { "type": "point", "strokeWidth": 2.2, "opacity": 1 }, "encoding": { "x": "$x", "y": { "value": "$height" }, "tooltip": "$mark_tooltip", "shape": "$mark_shape", "size": "$mark_size", "stroke": "$mark_stroke", "fill": "$mark_fill" } }
    ]
  },
  "xi_panel": {
    "width": "$width", "height": "$xi_height",
    "layer": [
      "$guide",
      { "data": { "values": [{ "xi": 0.5 }] }, "mark": { "type": "rule", "strokeDash": [2, 3], "color": "$selected" }, "encoding": { "y": "$xi" } },
      { "data": { "values": "$points" }, "transform": ["$known"], "mark": { "type": "line", "color": "$soft", "strokeWidth": 2 }, "encoding": { "x": "$last_x", "y": "$xi" } },
      { "data": { "values": "$points" }, "transform": ["$known"], "mark": { "type": "point", "filled": true, "color": "$soft", "size": "$dot", "opacity": 1 }, "encoding": { "x": "$last_x", "y": "$xi", "tooltip": "$tooltip" } },
      { "data": { "values": "$marks" }, "transform": ["$known", "$picked"], "mark": { "type": "point", "shape": "diamond", "size": 110, "filled": true, "color": "$selected", "opacity": 1 }, "encoding": { "x": "$last_x", "y": "$xi" } },
      { "data": { "values": "$one_sided" }, "mark": "$far_text", "encoding": { "y": "$xi", "text": { "field": "text", "type": "nominal" } } }
    ]
  },
  "text_left": { "type": "text", "align": "left", "x": 6, "dy": 10 },
  "text_right": { "type": "text", "align": "right", "x": { "expr": "width - 6" }, "dy": 10 },
  "guide": { "data": { "values": "$marks" }, "transform": ["$picked"], "mark": { "type": "rule", "strokeDash": [2, 3], "color": "$selected", "opacity": 0.7 }, "encoding": { "x": { "field": "at", "type": "quantitative" } } },
  "scored": { "filter": "isValid(datum.lds)" },
  "known": { "filter": "isValid(datum.xi)" },
  "picked": { "filter": "datum.mark === 'selected'" },
  "x": { "field": "at", "type": "quantitative", "title": "$upper_title", "scale": "$x_scale", "axis": "$x_axis" },
  "last_x": { "field": "at", "type": "quantitative", "title": "$title", "scale": "$x_scale", "axis": "$x_axis" },
  "x_scale": { "domain": "$domain", "nice": false, "zero": false },
  "x_axis": { "values": "$places", "labelExpr": "$labels", "grid": false, "labelOverlap": true, "labelSeparation": 5 },
  "lds": { "field": "lds", "type": "quantitative", "title": "LDS", "scale": { "zero": false } },
  "xi": { "field": "xi", "type": "quantitative", "title": "mean ξ", "scale": { "domain": [0, 1] }, "axis": { "values": [0, 0.5, 1], "tickCount": 3 } },
  "mark_shape": { "field": "mark", "type": "nominal", "title": null, "scale": { "domain": "$variants", "range": ["square", "diamond", "circle"] }, "legend": { "labelExpr": "$legend", "values": "$drawn" } },
  "mark_size": { "field": "size", "type": "quantitative", "scale": null, "legend": null },
  "mark_stroke": { "field": "mark", "type": "nominal", "title": null, "scale": { "domain": "$variants", "range": ["$default", "$selected", "$oracle"] } },
  "mark_fill": { "field": "mark", "type": "nominal", "title": null, "scale": { "domain": "$variants", "range": ["transparent", "$selected", "transparent"] } },
  "variants": ["default", "selected", "oracle"],
  "mark_tooltip": [{ "field": "mark", "type": "nominal", "title": "is" }, { "field": "label", "type": "nominal", "title": "$name" }, { "field": "lds", "type": "quantitative", "title": "LDS", "format": ".4f" }],
  "tooltip": [
    { "field": "label", "type": "nominal", "title": "$name" }, { "field": "lds", "type": "quantitative", "title": "LDS", "format": ".4f" },
    { "field": "low", "type": "quantitative", "title": "from", "format": ".4f" }, { "field": "high", "type": "quantitative", "title": "to", "format": ".4f" },
    { "field": "xi", "type": "quantitative", "title": "ξ̄", "format": ".4f" }
  ],

  "surface": {
    "title": "$heading", "width": "$width", "height": "$height", "config": "$config",
    "layer": [
      { "data": { "values": "$absent" }, "mark": { "type": "rect" }, "encoding": { "x": "$column", "y": "$row", "fill": { "field": "state", "type": "nominal", "title": null, "scale": { "range": ["$line"] }, "legend": "$absent_legend" } } },
      { "data": { "values": "$points" }, "transform": ["$scored"], "mark": { "type": "rect" }, "encoding": { "x": "$column", "y": "$row", "tooltip": "$cell_tooltip", "color": { "field": "lds", "type": "quantitative", "title": "LDS", "scale": { "scheme": "viridis" }, "legend": { "orient": "$bar_side", "gradientLength": "$gradient", "titleFontWeight": 500 } } } },
      { "data": { "values": "$points" }, "transform": ["$scored", { "filter": "isValid(datum.text)" }], "mark": { "type": "text", "fontSize": 11 }, "encoding": { "x": "$column", "y": "$row", "text": { "field": "text", "type": "nominal" }, "color": "$contrast" } },
      { "data": { "values": "$points" }, "transform": [{ "filter": "!isValid(datum.lds)" }], "mark": { "type": "text", "text": "×", "fontSize": 18, "color": "$bad" }, "encoding": { "x": "$column", "y": "$row", "tooltip": [{ "field": "reason", "type": "nominal" }] } },
      { "data": { "values": "$marks" }, "mark": { "type": "point", "size": "$mark_area", "strokeWidth": 3, "filled": false, "opacity": 1 }, "encoding": { "x": "$column", "y": "$row", "tooltip": "$cell_tooltip", "stroke": "$contrast", "shape": { "field": "mark", "type": "nominal", "title": null, "scale": { "domain": "$kinds", "range": "$shapes" }, "legend": { "symbolStrokeColor": "$ink" } } } }
    ]
  },
  "not_run": { "symbolType": "square", "symbolSize": 120 },
  "contrast": { "condition": { "test": "datum.bright", "value": "#000000" }, "value": "#ffffff" },
  "column": { "field": "value", "type": "ordinal", "sort": "$columns_order", "title": "$title", "axis": { "labelAngle": "$angle", "labelOverlap": "greedy", "labelSeparation": 4, "labelExpr": "$column_labels" } },
  "row": { "field": "second", "type": "ordinal", "sort": "$rows_order", "title": "$second_title", "axis": { "labelExpr": "$row_labels" } },
  "cell_tooltip": [{ "field": "secondLabel", "type": "nominal", "title": "$second_title" }, { "field": "label", "type": "nominal", "title": "$title" }, { "field": "lds", "type": "quantitative", "title": "LDS", "format": ".4f" }, { "field": "xi", "type": "quantitative", "title": "ξ̄", "format": ".4f" }],

  "lines": {
    "title": "$heading", "width": "$width", "height": "$height", "config": "$config",
    "layer": [
      { "data": { "values": "$points" }, "mark": { "type": "area", "opacity": 0.17, "interpolate": "$interpolate" }, "encoding": { "x": "$line_x", "y": { "field": "low", "type": "quantitative", "title": "$y_title" }, "y2": { "field": "high" }, "fill": "$own_color", "detail": { "field": "series" } } },
      { "data": { "values": "$points" }, "mark": { "type": "line", "strokeWidth": 1.8, "interpolate": "$interpolate" }, "encoding": { "x": "$line_x", "y": "$line_y", "color": "$series_color", "strokeDash": "$series_dash" } },
      { "data": { "values": "$points" }, "transform": [{ "filter": "datum.dot" }], "mark": { "type": "point", "filled": true, "size": 40, "opacity": 1 }, "encoding": { "x": "$line_x", "y": "$line_y", "fill": "$own_color", "shape": { "field": "shape", "type": "nominal", "scale": null } } }
    ]
  },
  "budget": {
    "title": "$heading", "width": "$width", "height": "$height", "config": "$config",
    "layer": [
      { "data": { "values": [{ "mean": 0 }] }, "mark": { "type": "rule", "color": "$soft", "opacity": 0.6 }, "encoding": { "y": "$regret" } },
      { "data": { "values": "$paid" }, "mark": { "type": "area", "opacity": 0.1 }, "encoding": { "x": "$budget_x", "y": { "field": "low", "type": "quantitative", "title": "regret (LDS)" }, "y2": { "field": "high" }, "fill": "$own_color", "detail": { "field": "series" } } },
      { "data": { "values": "$paid" }, "mark": { "type": "line", "strokeWidth": 1.8 }, "encoding": { "x": "$budget_x", "y": "$regret", "color": "$series_color", "strokeDash": "$series_dash" } },
      { "data": { "values": "$paid" }, "mark": { "type": "point", "filled": true, "size": 36, "opacity": 1 }, "encoding": { "x": "$budget_x", "y": "$regret", "fill": "$own_color" } },
      { "data": { "values": "$marks" }, "mark": { "type": "point", "filled": false, "size": 110, "strokeWidth": 2.2, "opacity": 1 }, "encoding": { "x": "$budget_x", "y": "$regret", "stroke": "$own_color", "shape": { "field": "shape", "type": "nominal", "scale": null } } }
    ]
  },
  "ranks": {
    "title": "$heading", "width": "$width", "height": "$height", "config": "$config",
    "layer": [
      { "data": { "values": "$ranked" }, "mark": { "type": "rule", "strokeWidth": 3, "opacity": 0.28 }, "encoding": { "x": "$question_x", "y": { "field": "low", "type": "quantitative" }, "y2": { "field": "high" }, "stroke": "$own_color" } },
      { "data": { "values": "$ranked" }, "mark": { "type": "line", "strokeWidth": 1.8 }, "encoding": { "x": "$question_x", "y": "$rank_y", "color": "$series_color", "strokeDash": "$series_dash", "order": { "field": "at", "type": "quantitative" } } },
      { "data": { "values": "$ranked" }, "transform": [{ "filter": "datum.area > 0" }], "mark": { "type": "point", "filled": true, "size": 52, "opacity": 1 }, "encoding": { "x": "$question_x", "y": "$rank_y", "fill": "$own_color" } },
      { "data": { "values": "$ranked" }, "transform": [{ "filter": "datum.area == 0" }], "mark": { "type": "point", "filled": false, "size": 52, "strokeWidth": 1.6, "opacity": 1 }, "encoding": { "x": "$question_x", "y": "$rank_y", "stroke": "$own_color" } }
    ]
  },
  "question_x": { "field": "at", "type": "quantitative", "title": null, "scale": "$x_scale", "axis": { "values": "$places", "labelExpr": "$labels", "grid": true, "labelOverlap": false, "labelOffset": "$offset", "ticks": false } },
  "rank_y": { "field": "rank", "type": "quantitative", "title": "rank (1: best)", "scale": { "domain": "$rank_domain", "zero": false, "nice": false }, "axis": { "values": "$rank_places", "format": "d", "grid": false } },
  "budget_x": { "field": "at", "type": "quantitative", "title": "$budget_title", "scale": "$x_scale", "axis": { "values": "$places", "labelExpr": "$labels", "grid": false, "labelOverlap": false } },
  "regret": { "field": "mean", "type": "quantitative", "title": "regret (LDS)" },
  "own_color": { "field": "color", "type": "nominal", "scale": null },
  "line_x": { "field": "x", "type": "quantitative", "title": "$title", "scale": "$line_scale", "axis": { "tickCount": 8 } },
  "line_y": { "field": "y", "type": "quantitative", "title": "$y_title", "scale": "$y_scale" },
  "series_color": { "field": "series", "type": "nominal", "title": null, "scale": { "domain": "$names", "range": "$colors" }, "legend": { "symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 2 } },
  "series_dash": { "field": "series", "type": "nominal", "title": null, "scale": { "domain": "$names", "range": "$dashes" } }
};
